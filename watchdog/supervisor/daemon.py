"""How a node comes to life: in the foreground, as a daemon, and again after its supervisor was killed.

python-daemon only detaches (DESIGN section 10): it closes every descriptor, so it is entered before the log and
before any socket. The starting command stays behind, waits for readiness on a pipe and ends with the daemon's
own reason, because a daemon that says "started" and then dies tells nobody.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from pgvigil.ipc import endpoints, log
from pgvigil.ipc.clock import NS_PER_MS, NS_PER_S, boottime_ns
from pgvigil.ipc.errors import PgvigilError
from pgvigil.watchdog.settings import Settings
from pgvigil.watchdog.supervisor import children, exits, last_will
from pgvigil.watchdog.supervisor.notify import Notifier
from pgvigil.watchdog.supervisor.parent import Supervisor
from pgvigil.watchdog.supervisor.pidfile import RETRY_NS, RETRY_PAUSE_S, AlreadyRunning, PidFile

READY_LIMIT_NS = 15 * NS_PER_S
REVIVALS = "PGVIGIL_REVIVALS"  # from `revive` to the start that it executes: "<count>:<boottime ns of the newest>"
REVIVED_LOCK_WAIT_NS = 10 * NS_PER_S
REVIVAL_FORGET_NS = 60 * NS_PER_S
REVIVAL_FIRST_PAUSE_NS = 100 * NS_PER_MS
REVIVAL_LONGEST_PAUSE_NS = 10 * NS_PER_S

Load = Callable[[str, int | None], Settings]

# Known to the children through the fork. In the environment they would reach the user's commands too.
_revive_command: tuple[str, ...] = ()
_revivals: tuple[int, int] = (0, 0)

_log = logging.getLogger(log.LOGGER)


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of; tests put stubs in."""

    table: children.Table
    load: Load
    release: last_will.Release


def real_parts() -> Parts:
    """The real children, loader and release; importing them here shares their memory with all children."""
    from pgvigil.watchdog.config.load import load

    return Parts(children.table, load, last_will.release_function())


def start(
    settings: Settings,
    foreground: bool,
    argv: Sequence[str],
    parts: Callable[[], Parts] = real_parts,
    revive_command: Sequence[str] | None = None,
) -> int:
    """Start this node; the exit code (see `exits`), with the reason on standard error if it is not 0.

    In the foreground it returns when the node has stopped; as a daemon, when it is ready or has failed. `argv` is
    logged. `revive_command` is what `revive` executes, by default `pgvigil start` for the same file and node.
    """
    global _revive_command, _revivals
    settings = dataclasses.replace(settings, source=os.path.abspath(settings.source))
    _revive_command, _revivals = (), _read_revivals(os.environ.pop(REVIVALS, ""))
    if foreground:
        code, reason = _run(settings, parts, argv, Notifier.from_environment(), lambda: None)
        return _end(code, reason)
    _revive_command = tuple(revive_command) if revive_command is not None else _start_command(settings)
    _sleep_until_revival()
    return _start_daemon(_daemon_settings(settings), parts, argv)


def _start_command(settings: Settings) -> tuple[str, ...]:
    # -P: the working folder of a daemon is no place to import from.
    head = (sys.executable, "-P", "-m", "pgvigil.watchdog.cli")
    return (*head, "--config", settings.source, "--node-id", str(settings.node_id), "start")


def _daemon_settings(settings: Settings) -> Settings:
    """A daemon has no standard error: its log goes to a file in the state directory instead."""
    if settings.process.log != "stderr":
        return settings
    path = os.path.join(os.path.abspath(settings.process.state_dir), "pgvigil.log")
    return dataclasses.replace(settings, process=dataclasses.replace(settings.process, log=f"file:{path}"))


def _end(code: int, reason: str) -> int:
    if code != exits.CLEAN:
        print(f"pgvigil: {reason or exits.MEANINGS.get(code, '')}", file=sys.stderr, flush=True)
    return code


# --- the node itself -----------------------------------------------------------------------------------


def _run(
    settings: Settings,
    parts: Callable[[], Parts],
    argv: Sequence[str],
    notifier: Notifier,
    on_started: Callable[[], None],
) -> tuple[int, str]:
    """Run the supervisor to its end: exit code and reason."""
    revived = _is_revived()
    try:
        supervisor = _prepare(settings, parts, notifier, on_started, revived)
        _log.info("supervisor starts (%s), pid %d", " ".join(argv) or "no arguments", os.getpid())
        code = supervisor.run()
        _log.info("stopped: %s", exits.MEANINGS.get(code, str(code)))
        return code, supervisor.reason
    except AlreadyRunning as error:
        return _refused(exits.ALREADY_RUNNING, str(error), revived)
    except (PgvigilError, OSError) as error:
        return _refused(exits.code_of(error), str(error), revived)
    except Exception as error:
        # Children are not stopped here: watchdog main sees our end and hands over by itself.
        _log.critical("the supervisor ends with an error that was not foreseen", exc_info=True)
        return exits.SOFTWARE, f"{type(error).__name__}: {error}"


def _refused(code: int, reason: str, revived: bool) -> tuple[int, str]:
    if revived:  # nobody reads what a revived start says
        _log.error("this node could not be brought back: %s", reason)
    return code, reason


def _prepare(
    settings: Settings, parts: Callable[[], Parts], notifier: Notifier, on_started: Callable[[], None], revived: bool
) -> Supervisor:
    process = settings.process
    endpoints.ensure_run_dir(process.run_dir, process.control_group)
    os.makedirs(process.state_dir, mode=0o700, exist_ok=True)
    log.setup("supervisor", settings.node.host, process.log, process.log_level)
    wait_ns = REVIVED_LOCK_WAIT_NS if revived else RETRY_NS
    pid_file = PidFile.take(process.run_dir, wait_ns)
    _refuse_a_used_state_dir(process.state_dir, pid_file, wait_ns)
    made = parts()
    daemonized = bool(_revive_command)

    def load() -> Settings:
        fresh = made.load(settings.source, settings.node_id)
        fresh = dataclasses.replace(fresh, source=settings.source)
        return _daemon_settings(fresh) if daemonized else fresh

    return Supervisor(
        settings, made.table, load, made.release, pid_file, notifier, on_started, strict_start=not revived
    )


def _refuse_a_used_state_dir(state_dir: str, pid_file: PidFile, wait_ns: int) -> None:
    """The pid file may have been deleted under a running node: then only its watchdog main's lock tells of it.

    Its start would fail in any case, but not without taking the running node's VIP down as its last will.
    """
    from pgvigil.watchdog import store  # not for the command line, which only looks at the pid file

    deadline_ns = boottime_ns() + wait_ns
    while (holder := store.holder(state_dir)) is not None:
        if boottime_ns() >= deadline_ns:
            pid_file.release()
            raise AlreadyRunning(
                f"already running: watchdog main, process {holder}, holds {os.path.join(state_dir, store.LOCK_NAME)}; "
                "a supervisor makes a deleted run_dir again within 2 s, then `pgvigil stop` works"
            )
        time.sleep(RETRY_PAUSE_S)


# --- as a daemon ---------------------------------------------------------------------------------------


def _start_daemon(settings: Settings, parts: Callable[[], Parts], argv: Sequence[str]) -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_the_daemon(settings, parts, argv, writer)
    os.close(writer)
    code, text = _await_word(reader)
    os.close(reader)
    os.waitpid(pid, 0)  # the first child has only forked the daemon
    if code == exits.CLEAN:
        print(text)
        return code
    return _end(code, text)


def _await_word(reader: int) -> tuple[int, str]:
    """The daemon's one line, "<exit code> <text>", or what its silence means."""
    deadline_ns = boottime_ns() + READY_LIMIT_NS
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    data = b""
    while not data.endswith(b"\n"):
        left_ms = (deadline_ns - boottime_ns()) // NS_PER_MS
        if left_ms <= 0 or not poll.poll(left_ms):
            return exits.TIMED_OUT, f"no word from the daemon within {READY_LIMIT_NS // NS_PER_S} s; see its log"
        piece = os.read(reader, 4096)
        if not piece:
            return exits.SOFTWARE, "the daemon ended without a word; see its log"
        data += piece
    code, _, text = data.decode("utf-8", "replace").rstrip("\n").partition(" ")
    return int(code), text


def _be_the_daemon(settings: Settings, parts: Callable[[], Parts], argv: Sequence[str], writer: int) -> NoReturn:
    code = exits.SOFTWARE
    word = Word(writer)
    try:
        code, reason = _detach_and_run(settings, parts, argv, word)
        word.say(code, reason or exits.MEANINGS.get(code, ""))
    except BaseException as error:
        word.say(exits.SOFTWARE, f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)  # sys.exit would run handlers of the starting command and of python-daemon


def _detach_and_run(settings: Settings, parts: Callable[[], Parts], argv: Sequence[str], word: Word) -> tuple[int, str]:
    import daemon

    context = daemon.DaemonContext(
        files_preserve=[word.fd],
        umask=0o027,
        working_directory="/",
        prevent_core=False,
        pidfile=None,
        signal_map={},
        detach_process=True,  # its own guess is wrong below process 1 of a container
    )
    context.open()
    for fd in (0, 1, 2):
        # python-daemon opens them close-on-exec when they were closed before: the user's commands and `revive` would
        # start with files of their own in the place of standard output.
        os.set_inheritable(fd, True)

    def started() -> None:
        word.say(exits.CLEAN, f"pgvigil started, pid {os.getpid()}; log: {settings.process.log}")

    return _run(settings, parts, argv, Notifier(None), started)


class Word:
    """The one line that the starting command waits for; said once, then the pipe is closed."""

    def __init__(self, writer: int) -> None:
        self.fd = writer

    def say(self, code: int, text: str) -> None:
        if self.fd < 0:
            return
        try:
            os.write(self.fd, f"{code} {log.escape(text)}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # the starting command has gone
        os.close(self.fd)
        self.fd = -1


# --- back to life --------------------------------------------------------------------------------------


def revive(settings: Settings) -> None:
    """For watchdog main, after its supervisor died and it has handed over: become a new `pgvigil start`.

    Returns if this node was started in the foreground: then somebody else (systemd) restarts it. Frees the lock of
    the run directory by executing, so whoever starts the node meanwhile wins.
    """
    if not _revive_command:
        _log.info("this node runs in the foreground: whoever started it has to start it again")
        return
    count, at_ns = _revivals
    now_ns = boottime_ns()
    count = count + 1 if now_ns - at_ns < REVIVAL_FORGET_NS else 1
    _log.warning("the supervisor of %s died; starting this node again (time %d)", settings.node.host, count)
    if settings.process.log.startswith("file:"):
        # The start that follows must say somewhere why it fails, for example that the file has a mistake by now.
        for fd in log.descriptors():
            os.dup2(fd, 2)
    try:
        os.execve(_revive_command[0], _revive_command, {**os.environ, REVIVALS: f"{count}:{now_ns}"})
    except OSError as error:
        _log.critical("cannot start this node again: %s: %s", _revive_command[0], error.strerror)


def _is_revived() -> bool:
    return bool(_revive_command) and _revivals[0] > 0


def _read_revivals(text: str) -> tuple[int, int]:
    count, _, at_ns = text.partition(":")
    return (int(count), int(at_ns)) if count.isdigit() and at_ns.isdigit() else (0, 0)


def _sleep_until_revival() -> None:
    """Revived for the first time within a minute: at once; then slower and slower, up to 10 s."""
    count, _ = _revivals
    if count > 1:
        pause_ns = min(REVIVAL_FIRST_PAUSE_NS << min(count - 2, 32), REVIVAL_LONGEST_PAUSE_NS)
        time.sleep(pause_ns / NS_PER_S)
