"""Files of one store into another: which are there already, the others sent several at a time, each verified.

Bytes go from a local file. One of an S3 source is fetched into a temporary file first, and sent once it is what it
should be: the local disk needs room for the four objects that are under way at once.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol, TypeVar

from shards.errors import StoreError
from shards.multipart import Sender, Stopped, Tell
from shards.seal import PART_BYTES
from shards.spool import pour, sha256_of, windows
from shards.store import LocalStore, S3Store, Store, local_errors

_OBJECTS: Final = 4  # at once, each in several parts
_LOOK: Final = 0.2  # seconds between two looks at the progress
_READS: Final = 3  # of one object of a source on S3, until it is what it should be

Watch = Callable[[int, int], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How much at once. Progress is told from the calling thread: `checked(files, done)`, `sent(bytes, done)`."""

    checked: Watch
    sent: Watch
    threads: int = 8  # parts on their way
    part_bytes: int = PART_BYTES

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}: give at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """What is to be where: its names in the source and in the target, bytes, SHA-256 in hex digits."""

    source: str
    target: str
    size: int
    sha256: str


class Transfer:
    """A target, and how files get there. A context manager: what is on its way when an exception leaves is dropped."""

    def __init__(self, target: Store, how: How) -> None:
        self._how, self._stop = how, threading.Event()
        self._sink = _sink(target, how, self._stop)

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._stop.set()
        self._sink.close()

    def send(self, source: Store, files: Sequence[File]) -> list[File]:
        """Those that the target lacks; they are there afterwards. Raises StoreError naming what can't be had or put."""
        asked = [partial(self._sink.holds, one.target, one.size, one.sha256) for one in files]
        there = self._all(asked, self._how.threads, lambda done: self._how.checked(len(files), done))
        missing = [one for one, is_there in zip(files, there, strict=True) if not is_there]
        total, counter = sum(one.size for one in missing), _Counter()
        tasks = [partial(self._send_one, source, one, counter.add) for one in missing]
        self._all(tasks, _OBJECTS, lambda done: self._how.sent(total, min(counter.value, total)))
        return missing

    def put(self, name: str, data: bytes) -> None:
        """These bytes under this name, unless they are there."""
        sha256 = hashlib.sha256(data).hexdigest()
        if self._sink.holds(name, len(data), sha256):
            return
        with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            path.write_bytes(data)
            self._sink.put(name, path, sha256, lambda sent: None)

    def clear(self, prefix: str) -> None:
        """Ends what other runs left unfinished under this prefix."""
        self._sink.end_others(prefix)

    def _send_one(self, source: Store, file: File, tell: Tell) -> None:
        with _at_hand(source, file, self._stop) as path:
            self._sink.put(file.target, path, file.sha256, tell)

    def _all(self, tasks: Sequence[Callable[[], Answer]], threads: int, watch: Callable[[int], None]) -> list[Answer]:
        """What each gives, `threads` at a time. The first error, or one of `watch`, stops the others and is raised."""
        with ThreadPoolExecutor(threads, thread_name_prefix="transfer") as pool:
            futures = [pool.submit(task) for task in tasks]
            waiting = set(futures)
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_EXCEPTION)
                    failed = [error for future in done if (error := future.exception()) is not None]
                    if failed:
                        raise next((error for error in failed if not isinstance(error, Stopped)), failed[0])
                    watch(len(futures) - len(waiting))
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]


def _sink(target: Store, how: How, stop: threading.Event) -> Sink:
    target.sweep()
    if isinstance(target, S3Store):
        return Sender(target, how.threads, stop, how.part_bytes)
    assert isinstance(target, LocalStore)
    return _LocalSink(target)


class Sink(Protocol):
    """Where objects go."""

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether this file is there, whole."""
        ...

    def put(self, name: str, path: Path, sha256: str, tell: Tell) -> None:
        """The file's content under this name, verified. Raises StoreError where the file or what arrives is another."""
        ...

    def end_others(self, prefix: str) -> None:
        """Clears what unfinished writes left."""
        ...

    def close(self) -> None: ...


@contextmanager
def _at_hand(source: Store, file: File, stop: threading.Event) -> Iterator[Path]:
    """The object as a local file: itself, or a copy that is gone afterwards. Raises StoreError."""
    if isinstance(source, LocalStore):
        path = source.folder / file.source
        if not path.is_file():
            raise _missing(source, file.source)
        yield path
        return
    with local_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        path = Path(folder) / PurePosixPath(file.source).name
        if not any(_download(source, file, path, stop) == file.sha256 for _ in range(_READS)):
            raise StoreError(f"{source.root}/{file.source}, read {_READS} times, {_NOT_WHAT_IT_WAS}")
        yield path


_NOT_WHAT_IT_WAS: Final = (
    "is not what the manifest says: it is damaged, or the set is being made anew; make it again before you publish it"
)


def _missing(source: Store, name: str) -> StoreError:
    return StoreError(f"{source.root}/{name} is named in the manifest and not there: make the set again")


def _download(source: Store, file: File, path: Path, stop: threading.Event) -> str:
    """Its SHA-256."""

    def until_stopped() -> Iterator[bytes]:
        for block in windows(source, file.source, file.size, PART_BYTES):
            if stop.is_set():
                raise Stopped
            yield block

    with path.open("wb") as target:
        try:
            return pour(until_stopped(), target).sha256
        except FileNotFoundError as error:
            raise _missing(source, file.source) from error


class _Counter:
    """A number that several threads add to."""

    def __init__(self) -> None:
        self._lock, self.value = threading.Lock(), 0

    def add(self, more: int) -> None:
        with self._lock:
            self.value += more


class _LocalSink:
    """A folder: what is written is read back and compared."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def holds(self, name: str, size: int, sha256: str) -> bool:
        return self._store.exists(name) and self._store.size(name) == size and self._sha256(name) == sha256

    def put(self, name: str, path: Path, sha256: str, tell: Tell) -> None:
        written = self._store.write(name, path)
        if written.sha256 != sha256 or self._sha256(name) != sha256:
            self._store.delete(name)
            raise StoreError(f"{path} {_NOT_WHAT_IT_WAS}")
        tell(written.size)

    def close(self) -> None:
        """Nothing is open."""

    def end_others(self, prefix: str) -> None:
        """Nothing to do: the store sweeps what killed writers left."""

    def _sha256(self, name: str) -> str:
        return sha256_of(self._store.folder / name)
