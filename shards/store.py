"""Where everything lives: one root, a local folder or `s3://bucket/prefix`, behind one small interface.

Names are relative, with `/` between their parts. A write is atomic: a reader sees the old object or the
new one, whole. Local writes go to a temporary file in the same folder, are flushed to the disk and renamed;
S3 shows an object only once its upload is complete.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from shards import s3
from shards.errors import StoreError as StoreError

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TEMPORARY: Final = ".tmp-"
_BLOCK: Final = 1 << 20
_ABANDONED_AFTER: Final = 24 * 3600.0  # seconds: no write of ours takes a day


Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a write put there: size in bytes and SHA-256 in hex digits."""

    size: int
    sha256: str


class Store(Protocol):
    """The interface. `name` is checked: a name that could leave the root raises StoreError.

    A store is a value: equal, hashable and picklable by its root, so that it travels to any worker.
    """

    def __hash__(self) -> int: ...

    @property
    def root(self) -> str:
        """The folder or `s3://` URL, as `open_store` takes it."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Names that begin with `prefix` (a folder ends in `/`), in ascending order."""
        ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`. Raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes | Path) -> Written:
        """Puts `data` (bytes, or a local file's content) there, atomically."""
        ...

    def delete(self, name: str) -> None:
        """Takes the object away; none there is fine."""
        ...

    def sweep(self) -> None:
        """Clears the remains of writers that were killed. Called once, when a job starts."""
        ...


def checked(name: str) -> str:
    """`name` if each of its parts is plain (letters, digits, `._-`, no leading dot); else StoreError."""
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise StoreError(f"'{name}' is no object name: letters, digits, '.', '_', '-' between slashes only")
    return name


def open_store(root: str, endpoint_url: str | None = None) -> Store:
    """The store at `root`: `s3://bucket/prefix`, `http(s)://…` (to be read only), or a folder (made by a write).

    A relative folder is taken from here, once: workers run in folders of their own.

    Raises StoreError for another scheme, and for credentials in a URL: every message would show them.
    """
    if any("@" in urlsplit(url).netloc for url in (root, endpoint_url or "")):
        raise StoreError("credentials don't belong into a URL: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
    if root.startswith("s3://"):
        return S3Store(root, endpoint_url=endpoint_url)
    if root.startswith(("http://", "https://")):
        from shards.web import WebStore  # it needs this module's words

        return WebStore(root)
    if "://" in root:
        raise StoreError(f"'{root}': a store is a local folder or s3://bucket/prefix; to read from, also http(s)://…")
    return LocalStore(Path(root).absolute())


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A store in a local folder. See `Store` for the methods."""

    folder: Path

    @property
    def root(self) -> str:
        return str(self.folder)

    def list(self, prefix: str) -> Iterator[str]:
        start = self.folder / prefix.rpartition("/")[0]
        names = (path.relative_to(self.folder).as_posix() for path in start.rglob("*") if path.is_file())
        return iter(sorted(name for name in names if name.startswith(prefix) and not _is_temporary(name)))

    def exists(self, name: str) -> bool:
        return (self.folder / checked(name)).is_file()

    def size(self, name: str) -> int:
        return (self.folder / checked(name)).stat().st_size

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with (self.folder / checked(name)).open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def write(self, name: str, data: bytes | Path) -> Written:
        target = self.folder / checked(name)
        with local_errors(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
            try:
                with os.fdopen(descriptor, "wb") as file, _opened(data) as source:
                    written = _copy(source, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).chmod(0o644)
                Path(temporary).replace(target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        return written

    def delete(self, name: str) -> None:
        (self.folder / checked(name)).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what a killed writer left behind, once it is too old to be another writer's."""
        for path in self.folder.rglob(_TEMPORARY + "*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class S3Store:
    """A store under `s3://bucket/prefix`. Credentials come the usual AWS way; see `Store` for the methods."""

    url: str
    endpoint_url: str | None = None

    @property
    def root(self) -> str:
        return self.url.rstrip("/")

    @property
    def bucket(self) -> str:
        return self.root.removeprefix("s3://").partition("/")[0]

    def key(self, name: str) -> str:
        """The object's whole key in the bucket."""
        prefix = self.root.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/{name}" if prefix else name

    def ask(self, name: str, question: Callable[[Any], Answer], pause: Callable[[float], None] = time.sleep) -> Answer:
        """`shards.s3.ask` about an object of this store."""
        return s3.ask(self.endpoint_url, f"{self.root}/{name}", question, pause)

    def list(self, prefix: str) -> Iterator[str]:
        where = {"Bucket": self.bucket, "Prefix": self.key(prefix)}
        while True:
            page = self.ask(prefix, methodcaller("list_objects_v2", **where))
            yield from (entry["Key"][len(self.key("")) :] for entry in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            where = {**where, "ContinuationToken": page["NextContinuationToken"]}

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        where = {"Bucket": self.bucket, "Key": self.key(checked(name))}
        return int(self.ask(name, methodcaller("head_object", **where))["ContentLength"])

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """A body that breaks off is asked for again."""
        if length == 0:
            return b""
        end = "" if length is None else start + length - 1
        window = {} if start == 0 and length is None else {"Range": f"bytes={start}-{end}"}
        where = {"Bucket": self.bucket, "Key": self.key(checked(name)), **window}

        def read_body(client: Any) -> bytes:
            try:
                answer = client.get_object(**where)
            except ClientError as error:
                if s3.is_beyond_end(error):  # nothing there from `start` on, as in a file
                    return b""
                raise
            data = bytes(answer["Body"].read())
            if len(data) != answer["ContentLength"]:
                raise s3.Damaged(f"{len(data)} bytes came of {answer['ContentLength']}")
            return data

        return self.ask(name, read_body)

    def write(self, name: str, data: bytes | Path) -> Written:
        with _opened(data) as source:
            written = _copy(source, None)

        def upload(client: Any) -> None:
            with _opened(data) as source:
                client.upload_fileobj(source, self.bucket, self.key(checked(name)))

        self.ask(name, upload)
        return written

    def delete(self, name: str) -> None:
        where = {"Bucket": self.bucket, "Key": self.key(checked(name))}
        self.ask(name, methodcaller("delete_object", **where))

    def sweep(self) -> None:
        """Nothing to do: S3 shows no unfinished upload."""


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_TEMPORARY)


@contextmanager
def _opened(data: bytes | Path) -> Iterator[IO[bytes]]:
    source: IO[bytes] = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    with source:
        yield source


def _copy(source: IO[bytes], target: IO[bytes] | None) -> Written:
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
    return Written(size=size, sha256=digest.hexdigest())


@contextmanager
def local_errors(root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left in {root}: free some, then give the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StoreError(f"cannot write in {root} ({error.strerror}): name another place") from error
        raise
