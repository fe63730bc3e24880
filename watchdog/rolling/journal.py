"""The file in which a rolling run lives on when its process does not.

One JSON object, replaced as a whole: a temporary file, fsync, rename, fsync of the folder, so that a crash leaves the
old plan or the new one. It is written before every deed. A file that is damaged or of another version is refused and
never guessed at, for it says what is detached. Only the holder of the lock writes; anybody who may read it can look.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import asdict, fields
from typing import Any

from pgvigil.ipc.errors import CommandError
from pgvigil.watchdog.rolling.plan import HALF, Member, OnFailure, Phase, Plan, Rules, State

FORMAT = 1
FILE_NAME = "rolling.json"
MAX_BYTES = 1024 * 1024


class Journal:
    """The plan of one run on disk, locked for as long as this object lives."""

    def __init__(self, path: str) -> None:
        """Take the lock; `CommandError` if another run holds it or the folder cannot be written."""
        self.path = os.path.abspath(path)
        self._lock = _take_lock(self.path)

    def close(self) -> None:
        """Let another run begin."""
        os.close(self._lock)

    def load(self) -> Plan | None:
        """As `load`; `CommandError` also if somebody else could have written what would be run here."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandError(f"cannot read the state of the run in {self.path}: {error.strerror}") from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022 or not stat.S_ISREG(found.st_mode):
            mode = f"{stat.filemode(found.st_mode)} of user {found.st_uid}"
            raise CommandError(f"{self.path} is {mode}, expected a file that only user {os.geteuid()} may write")
        return load(self.path)

    def save(self, plan: Plan) -> None:
        """Durable when it returns; `CommandError` if it is not."""
        data = json.dumps({"format": FORMAT} | asdict(plan), ensure_ascii=True, indent=1).encode() + b"\n"
        new = self.path + ".new"
        try:
            _write(new, data)
            os.replace(new, self.path)
            _sync_folder(os.path.dirname(self.path))
        except OSError as error:
            raise CommandError(f"cannot write the state of the run to {self.path}: {error.strerror}") from None

    def output(self, plan: Plan, backend_id: int) -> str:
        """The file for what the command of a backend says."""
        return output_of(self.path, plan, backend_id)

    def remove_outputs(self, plan: Plan) -> None:
        """Of an earlier run, when a new one begins."""
        for member in plan.working:
            try:
                os.unlink(self.output(plan, member.backend_id))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CommandError(f"cannot remove {error.filename}: {error.strerror}") from None


def output_of(path: str, plan: Plan, backend_id: int) -> str:
    return f"{os.path.abspath(path)}.{plan.run_id}.{backend_id}.log"


def load(path: str) -> Plan | None:
    """The plan in the file, None if there is none; `CommandError` if it cannot be read or trusted."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"cannot read the state of the run in {path}: {error.strerror}") from None
    try:
        return _plan(json.loads(data[:MAX_BYTES]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CommandError(
            f"{path} holds no state of a run that this version can read ({type(error).__name__}: {str(error)[:200]}): "
            f"look with 'pgvigil backend list' which backends are detached, attach them, and remove the file"
        ) from None


def holder(path: str) -> int:
    """The process that works on this run now, 0 if none does."""
    try:
        descriptor = os.open(_lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0  # no lock was ever taken, or whoever reads the plan will say what is wrong
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else -1
    finally:
        os.close(descriptor)
    return 0


def _plan(value: Any) -> Plan:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    if value.pop("format") != FORMAT:
        raise ValueError(f"expected format {FORMAT}")
    rules = value.pop("rules")
    members = value.pop("members")
    rules["on_failure"] = OnFailure(rules["on_failure"])
    plan = Plan(
        rules=_made(Rules, rules),
        members=tuple(_made(Member, item | {"phase": Phase(item["phase"])}) for item in members),
        state=State(value.pop("state")),
        **_checked(Plan, value),
    )
    if plan.rules.batch != HALF and int(plan.rules.batch) < 1:
        raise ValueError(f"a batch of {plan.rules.batch}")
    return plan


def _made(kind: Any, value: dict[str, Any]) -> Any:
    return kind(**_checked(kind, value))


def _checked(kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Every value of the type that the field is declared with: `from __future__` made the types text."""
    types = {"int": int, "str": str, "bool": bool, "Phase": Phase, "OnFailure": OnFailure}
    declared = {field.name: field.type for field in fields(kind)}
    for key, item in value.items():
        if type(item) is not types[str(declared[key])]:
            raise TypeError(f"{key} is {str(item)[:80]!r}, expected {declared[key]}")
    return value


def _lock_path(path: str) -> str:
    return os.path.abspath(path) + ".lock"


def _take_lock(path: str) -> int:
    """A file of its own: the plan's is replaced again and again."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(_lock_path(path), flags, 0o600)
    except OSError as error:
        raise CommandError(f"cannot lock {_lock_path(path)}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise CommandError(
            f"a rolling run is at work already (process {text}, {path}): see 'pgvigil rolling --status', wait, or stop "
            f"it with Ctrl-C there"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
