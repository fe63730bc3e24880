"""Where the processes of one node meet: the run directory and the names in it.

The directory is ours alone (0700), or members of a group may pass through it (0710) to the one socket that is theirs.
Its lock is taken before any bind, because a second bind on an ipc path steals it silently. Names are short: a path of
108 bytes or more cannot be bound (unix(7)).
"""

from __future__ import annotations

import grp
import os
import stat

from pgvigil.ipc.errors import ConfigError

MAX_PATH_BYTES = 107


def ensure_run_dir(run_dir: str, group: str = "") -> None:
    """Make the run directory (0700, with a group 0710), or refuse one that is another user's or open to others."""
    try:
        os.makedirs(run_dir, mode=0o700, exist_ok=True)
        info = os.lstat(run_dir)
    except OSError as error:
        raise ConfigError(f"run_dir {run_dir}: {error.strerror}; expected a folder that pgvigil may make") from None
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"run_dir {run_dir} is not a directory")
    if info.st_uid != os.geteuid():
        raise ConfigError(f"run_dir {run_dir} belongs to user id {info.st_uid}, expected {os.geteuid()}")
    if group:
        give_to_group(run_dir, group, 0o710)
    elif stat.S_IMODE(info.st_mode) & 0o077:
        os.chmod(run_dir, 0o700)
    longest = len(os.fsencode(sender_endpoint(run_dir, 99))) - len("ipc://")
    if longest > MAX_PATH_BYTES:
        raise ConfigError(
            f"run_dir {run_dir} is too long: {longest} bytes for its sockets, at most {MAX_PATH_BYTES} work"
        )


def give_to_group(path: str, group: str, mode: int) -> None:
    """Let a group have a file or folder with that mode; `ConfigError` if there is no such group or we may not."""
    try:
        os.chmod(path, 0o700 & mode)  # nobody else until it is the right group's
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(path, mode)
    except KeyError:
        raise ConfigError(f"control_group {group}: there is no such group") from None
    except OSError as error:
        raise ConfigError(
            f"control_group {group}: cannot give it {path}: {error.strerror}; run pgvigil as root or as a member"
        ) from None


def watchdog_endpoint(run_dir: str) -> str:
    """Where watchdog main takes verdicts."""
    return f"ipc://{run_dir}/watchdog.ipc"


def lifecheck_endpoint(run_dir: str) -> str:
    """Where lifecheck takes what the receivers heard."""
    return f"ipc://{run_dir}/lifecheck.ipc"


def sender_endpoint(run_dir: str, path: int) -> str:
    """Where the heartbeat sender of a path takes contents and nonces."""
    return f"ipc://{run_dir}/sender-{path}.ipc"


def file_of(endpoint: str) -> str:
    """The socket's file."""
    return endpoint.removeprefix("ipc://")


def control_endpoint(run_dir: str) -> str:
    """Where watchdog main serves the command line."""
    return f"ipc://{run_dir}/control.ipc"


def group_endpoint(run_dir: str) -> str:
    """Where it serves the members of a group, who may ask less."""
    return f"ipc://{run_dir}/group.ipc"
