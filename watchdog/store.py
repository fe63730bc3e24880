"""The durable record of one node on its disk (PROTOCOL 1).

The cluster is as safe as this file: a vote, a promise's length and a document count only once they are here. One
write is a temporary file, fsync, rename, fsync of the folder, so that a crash leaves the old record or the new
one. A record that is torn, foreign or newer than this program is refused, never repaired: a guess could vote twice.
Only the holder of the lock writes. Nothing is sent here; the caller holds its effects back until the ticket of
the write completes.
"""

from __future__ import annotations

import fcntl
import os
import queue
import struct
import threading
from collections import deque
from dataclasses import replace

from pgvigil.ipc import codec
from pgvigil.ipc.errors import CommandError, InvariantError, PeerError
from pgvigil.ipc.hashing import blake2b
from pgvigil.watchdog.core.record import RECORD_FORMAT, Record, blank_record

RECORD_NAME = "record"
TEMPORARY_NAME = "record.new"
LOCK_NAME = "lock"
MAGIC = b"pgvigil-record\r\n"
MAX_PENDING = 64
_HEADER = struct.Struct(">II")
_CHECKSUM_BYTES = 32
_PREFIX_BYTES = len(MAGIC) + _HEADER.size + _CHECKSUM_BYTES
_MAX_FILE_BYTES = _PREFIX_BYTES + codec.MAX_FRAME_BYTES
_ADVICE = (
    "this node neither votes nor stands until the file is readable again (never restore a back-up of it: it would be "
    "too old); "
    "if the record is lost for good, remove the file and let the cluster remove this node and add it again"
)


def pack(record: Record) -> bytes:
    """The bytes of the record file: magic, format, length, checksum of all the rest, content."""
    content = codec.encode(record)
    header = _HEADER.pack(record.format, len(content))
    return MAGIC + header + _checksum(header, content) + content


def unpack(data: bytes) -> Record:
    """A record from the bytes of its file; `PeerError` with found and expected."""
    if not data:
        raise PeerError("it is empty, expected a record")
    if not data.startswith(MAGIC):
        raise PeerError(f"it starts with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
    if len(data) < _PREFIX_BYTES:
        raise PeerError(f"it is torn: {len(data)} bytes, expected at least {_PREFIX_BYTES}")
    header = data[len(MAGIC) : len(MAGIC) + _HEADER.size]
    number, length = _HEADER.unpack(header)
    if number > RECORD_FORMAT:
        raise PeerError(f"it has format {number}, expected {RECORD_FORMAT} or older: a newer pgvigil has written it")
    content = data[_PREFIX_BYTES:]
    if len(content) != length:
        raise PeerError(f"it is torn: {len(content)} bytes of content, expected {length}")
    if data[_PREFIX_BYTES - _CHECKSUM_BYTES : _PREFIX_BYTES] != _checksum(header, content):
        raise PeerError("it is torn or damaged: its checksum does not match its content")
    record = codec.decode(Record, content)
    if record.format != number:
        raise PeerError(f"it has format {number} outside and {record.format} inside, expected the same")
    return record


def _checksum(header: bytes, content: bytes) -> bytes:
    return blake2b(MAGIC + header + content, digest_size=_CHECKSUM_BYTES).digest()


class Store:
    """The state folder of one node, locked for as long as the object (or its process) lives."""

    def __init__(self, state_dir: str, cluster: str, node_id: int) -> None:
        """Make the folder if it is missing and lock it; `CommandError` if that fails or another holds the lock."""
        self.path = os.path.join(state_dir, RECORD_NAME)
        self._cluster = cluster
        self._node_id = node_id
        try:
            _make_durable_folder(state_dir)
            self._folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandError(f"cannot open the state folder {state_dir}: {error.strerror}") from None
        try:
            self._lock = _take_lock(self._folder, os.path.join(state_dir, LOCK_NAME))
        except CommandError:
            os.close(self._folder)
            raise

    def open(self, kernel_boot_id: str, new_record_id: int) -> Record:
        """The stored record as it is; a blank one with `new_record_id`, of this start of the kernel, if there is none.

        `CommandError` if there is one that this node must not act on. The boot counter is not raised here.
        """
        data = self._read()
        if data is None:
            return replace(blank_record(self._cluster, self._node_id, new_record_id), kernel_boot_id=kernel_boot_id)
        try:
            record = unpack(data)
            self._check_owner(record)
        except PeerError as error:
            raise CommandError(f"the record {self.path} cannot be used: {error}; {_ADVICE}") from None
        return record

    def save(self, record: Record) -> None:
        """Make a record durable before returning (milliseconds); `CommandError` if the disk refuses."""
        self.write(self.packed(record))

    def packed(self, record: Record) -> bytes:
        """The bytes of this node's record; `InvariantError` for somebody else's."""
        try:
            self._check_owner(record)
        except PeerError as error:
            raise InvariantError(f"refused to write a record: {error}") from None
        return pack(record)

    def write(self, data: bytes) -> None:
        """Make packed bytes durable: temporary file, fsync, rename, fsync of the folder."""
        try:
            _write_file(self._folder, data)
            os.rename(TEMPORARY_NAME, RECORD_NAME, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as error:
            raise CommandError(
                f"cannot write the record {self.path}: {error.strerror}; this node sends nothing that depends on it"
            ) from None

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)
        os.close(self._folder)

    def _read(self) -> bytes | None:
        try:
            descriptor = os.open(RECORD_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandError(f"cannot open the record {self.path}: {error.strerror}; {_ADVICE}") from None
        try:
            with os.fdopen(descriptor, "rb") as file:
                return file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise CommandError(f"cannot read the record {self.path}: {error.strerror}; {_ADVICE}") from None

    def _check_owner(self, record: Record) -> None:
        found = (record.cluster, record.node_id)
        if found != (self._cluster, self._node_id):
            raise PeerError(
                f"it belongs to node {record.node_id} of cluster {record.cluster!r}, "
                f"expected node {self._node_id} of cluster {self._cluster!r}"
            )


class Writer:
    """Writes records in a thread, one by one in the order given, so that the loop never waits for a disk.

    Make it after the fork. After the first failure nothing more is written: a later record must not become
    durable while the caller believes that an earlier one did not.
    """

    def __init__(self, store: Store) -> None:
        self.failure: CommandError | None = None
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = store
        self._orders: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._done: deque[int] = deque()
        self._submitted = 0
        self._collected = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="record writer", daemon=True)
        self._thread.start()

    def submit(self, record: Record) -> int:
        """A ticket that `completed` names once the record is durable; tickets count up from 1."""
        if self._closed:
            raise InvariantError("a record was submitted to a closed writer")
        if self._submitted - self._collected >= MAX_PENDING:
            raise InvariantError(f"{MAX_PENDING} records wait for the disk, expected fewer: stop changing the record")
        data = self._store.packed(record)
        self._submitted += 1
        self._orders.put((self._submitted, data))
        return self._submitted

    def completed(self) -> list[int]:
        """Tickets that became durable since the last call, in order; look at `failure` afterwards."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        tickets = [self._done.popleft() for _ in range(len(self._done))]
        self._collected += len(tickets)
        return tickets

    def close(self, deadline_ms: int) -> None:
        """Finish what was submitted; `CommandError` if the disk takes longer than `deadline_ms`."""
        self._closed = True
        self._orders.put(None)
        self._thread.join(deadline_ms / 1000)
        if self._thread.is_alive():
            raise CommandError(f"the disk did not take the record {self._store.path} within {deadline_ms} ms")
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            if self.failure is None:
                self._write(*order)

    def _write(self, ticket: int, data: bytes) -> None:
        try:
            self._store.write(data)
            self._done.append(ticket)
        except CommandError as error:
            self.failure = error
        except BaseException as error:
            self.failure = CommandError(f"cannot write the record {self._store.path}: {error!r}")
        os.eventfd_write(self.fd, 1)


def _make_durable_folder(path: str) -> None:
    """Make a folder and its missing parents, and their names durable: a record in a lost folder is a lost record."""
    parent = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        return
    if not os.path.isdir(parent):
        _make_durable_folder(parent)
    os.mkdir(path, 0o700)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_lock(folder: int, path: str) -> int:
    """The descriptor that holds the lock (flock(2)); its file names the holder's process for the next one to read."""
    descriptor = -1
    try:
        descriptor = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        text = _holder_text(descriptor)
        os.close(descriptor)
        raise CommandError(
            f"{path} is locked by another pgvigil (process {text}): stop that one, or give this node "
            f"a state folder of its own"
        ) from None
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise CommandError(f"cannot lock {path}: {error.strerror}") from None
    return descriptor


def holder(state_dir: str) -> str | None:
    """The process that holds the lock of a state folder, as it wrote it there; None if nobody does."""
    try:
        descriptor = os.open(os.path.join(state_dir, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # whoever opens the store will say what is wrong with the folder
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder_text(descriptor)
    finally:
        os.close(descriptor)
    return None


def _holder_text(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _write_file(folder: int, data: bytes) -> None:
    """The temporary file, complete and durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(TEMPORARY_NAME, flags, 0o600, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
