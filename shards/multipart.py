"""Files to S3: in parts, several at once, going on where a killed run stopped, and verified when they are there.

A file is read once before the first byte is sent: its `Seal` has the SHA-256 of the whole, and SHA-256 and MD5 of each
part, so a file that is not what the manifest says never leaves, and what a server has of it can be compared without
reading it back. Parts carry their SHA-256, which AWS checks; servers that don't are held to the MD5 they answer with.

An object is verified by its checksum of checksums and its ETag together. Where a server gives neither, it is read back
and hashed: that costs the object's size in downloads, once. Memory: a part for each thread.

One publisher at a time: a second one would end the uploads of the first.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path
from typing import Any, Final

from shards import s3
from shards.errors import StoreError
from shards.seal import PART_BYTES, Part, Seal, seal
from shards.store import S3Store

SENDS: Final = 3  # of one object, until it is whole

_MD5_ETAG: Final = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
_WHOLE, _PARTS = "sha256", "sha256-parts"  # an object's metadata
_TYPES: Final = {".md": "text/markdown; charset=utf-8", ".json": "application/json"}

Tell = Callable[[int], None]


class Stopped(Exception):
    """The run is being ended: nothing more is sent."""


class Sender:
    """Puts files into an S3 store, with `threads` threads, each of which sends a part.

    `stop`, once set, ends all sending within a block.
    """

    def __init__(self, store: S3Store, threads: int, stop: threading.Event, part_bytes: int = PART_BYTES) -> None:
        self._store, self._stop, self._part_bytes = store, stop, part_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="send")

    def close(self) -> None:
        """Waits for the parts on their way; with `stop` set they are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether this file was put there and is there still; one request, nothing is read back."""
        try:
            head = self._head(name)
        except FileNotFoundError:
            return False
        about = head.get("Metadata", {})
        checksum = head.get("ChecksumSHA256")
        return (
            (head["ContentLength"], about.get(_WHOLE)) == (size, sha256)
            and _PARTS in about
            and (checksum is None or _bare(checksum) == _bare(about[_PARTS]))
        )

    def put(self, name: str, path: Path, sha256: str, tell: Tell) -> None:
        """The file's content under this name, verified. `tell` hears of bytes that are there.

        Raises StoreError where the file is another than `sha256` says, and where what arrives is not what was sent.
        """
        sealed = seal(path, self._part_bytes)
        if sealed.sha256 != sha256:
            raise StoreError(
                f"{path} is not what the manifest says: it is damaged, or the set is being made anew; make it again "
                "before you publish it"
            )
        for _ in range(SENDS):
            if self._sent(name, path, sealed, tell) and self._arrived(name, sealed):
                return
            tell(-sealed.size)
        self._store.delete(name)
        raise StoreError(
            f"{self._store.root}/{name} came out with other bytes than were sent, {SENDS} times, and was deleted: "
            "something between here and the server changes them"
        )

    def end_others(self, prefix: str) -> None:
        """Ends the uploads under this prefix that nobody finished: S3 keeps, and charges for, their parts."""
        for upload in self._uploads(prefix):
            self._abort(upload)

    def _sent(self, name: str, path: Path, sealed: Seal, tell: Tell) -> bool:
        """False where the upload was ended under our hands."""
        try:
            if len(sealed.parts) == 1:
                self._put_whole(name, path, sealed, tell)
            else:
                self._put_parts(name, path, sealed, tell)
        except s3.NoSuchUpload:
            return self._store.exists(name)  # where an answer got lost, the upload is over and the object there
        return True

    def _put_whole(self, name: str, path: Path, sealed: Seal, tell: Tell) -> None:
        part = sealed.parts[0]
        data = self._read(path, part)
        where = {**self._where(name), **self._about(name, sealed)}
        self._ask(name, lambda client: client.put_object(Body=self._body(data), ChecksumSHA256=part.checksum, **where))
        tell(part.size)

    def _put_parts(self, name: str, path: Path, sealed: Seal, tell: Tell) -> None:
        upload, etags = self._begun(name, sealed)
        missing = [part for part in sealed.parts if part.number not in etags]
        tell(sealed.size - sum(part.size for part in missing))
        sending = {part.number: self._pool.submit(self._put_part, name, upload, path, part, tell) for part in missing}
        try:
            etags |= {number: future.result() for number, future in sending.items()}
        except BaseException:
            _cancel(sending)
            raise
        parts = [
            {"PartNumber": part.number, "ETag": etags[part.number], "ChecksumSHA256": part.checksum}
            for part in sealed.parts
        ]
        where = {**self._where(name), "UploadId": upload, "MultipartUpload": {"Parts": parts}}
        self._ask(name, methodcaller("complete_multipart_upload", **where))

    def _put_part(self, name: str, upload: str, path: Path, part: Part, tell: Tell) -> str:
        """Its ETag."""
        data = self._read(path, part)
        where = {**self._where(name), "UploadId": upload, "PartNumber": part.number, "ChecksumSHA256": part.checksum}

        def send(client: Any) -> str:
            answer = client.upload_part(Body=self._body(data), ChecksumAlgorithm="SHA256", **where)
            etag = str(answer["ETag"]).strip('"')
            if answer.get("ChecksumSHA256") != part.checksum and _is_md5(etag) and etag != part.md5.hex():
                raise s3.Damaged(f"part {part.number} arrived with another MD5")
            return etag

        etag = self._ask(name, send)
        tell(part.size)
        return etag

    def _begun(self, name: str, sealed: Seal) -> tuple[str, dict[int, str]]:
        """The upload to go on with, and the ETags of the parts it has: the fullest one there is, or a new one.

        What another file left under this name is ended.
        """
        key = self._store.key(name)
        uploads = [one for one in self._uploads(name) if one["Key"] == key]
        usable = {one["UploadId"]: self._usable(name, one["UploadId"], sealed) for one in uploads if _is_ours(one)}
        fullest = max(usable, key=lambda upload: len(usable[upload]), default="")
        kept = fullest if usable.get(fullest) else ""
        for one in uploads:
            if one["UploadId"] != kept:
                self._abort(one)
        if kept:
            return kept, usable[kept]
        where = {**self._where(name), **self._about(name, sealed)}
        answer = self._ask(name, methodcaller("create_multipart_upload", **where))
        return str(answer["UploadId"]), {}

    def _uploads(self, prefix: str) -> list[Mapping[str, Any]]:
        """Unfinished ones of keys that begin so; none where the server can't say."""
        where = {"Bucket": self._store.bucket, "Prefix": self._store.key(prefix)}
        follow = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        try:
            pages = list(self._pages(prefix, "list_multipart_uploads", where, follow))
        except s3.Unsupported:
            return []
        return [upload for page in pages for upload in page.get("Uploads", ())]

    def _usable(self, name: str, upload: str, sealed: Seal) -> dict[int, str]:
        """Number -> ETag of the upload's parts that are the file's."""
        wanted = {part.number: part for part in sealed.parts}
        return {
            one["PartNumber"]: str(one["ETag"]).strip('"')
            for one in self._parts_of(name, upload)
            if one["PartNumber"] in wanted and _is_part(one, wanted[one["PartNumber"]])
        }

    def _parts_of(self, name: str, upload: str) -> list[Mapping[str, Any]]:
        where = {**self._where(name), "UploadId": upload}
        try:
            pages = list(self._pages(name, "list_parts", where, {"PartNumberMarker": "NextPartNumberMarker"}))
        except (s3.Unsupported, s3.NoSuchUpload):
            return []
        return [part for page in pages for part in page.get("Parts", ())]

    def _pages(
        self, name: str, method: str, asked: Mapping[str, Any], follow: Mapping[str, str]
    ) -> Iterator[Mapping[str, Any]]:
        """`follow`: an argument of the next request -> the entry of a page that it is."""
        while True:
            page = self._ask(name, methodcaller(method, **asked))
            yield page
            if not page.get("IsTruncated"):
                return
            asked = {**asked, **{argument: page[entry] for argument, entry in follow.items()}}

    def _abort(self, upload: Mapping[str, Any]) -> None:
        where = {"Bucket": self._store.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        try:
            self._ask(upload["Key"], methodcaller("abort_multipart_upload", **where))
        except s3.NoSuchUpload:
            return  # it has ended meanwhile: what we want

    def _arrived(self, name: str, sealed: Seal) -> bool:
        """Whether what is there is what was sent: by what the server says of it, else by reading it."""
        try:
            head = self._head(name)
        except FileNotFoundError:
            return False
        if (head["ContentLength"], head.get("Metadata", {}).get(_WHOLE)) != (sealed.size, sealed.sha256):
            return False
        said = head.get("ChecksumSHA256")
        if said is not None and _bare(said) != _bare(sealed.checksum):
            return False
        own_key = str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in head
        if said is not None and (own_key or str(head["ETag"]).strip('"') == sealed.etag):
            return True
        try:
            return self._read_back(name, sealed.size) == sealed.sha256
        except s3.Broken:
            return False

    def _read_back(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, size, self._part_bytes):
            self._go_on()
            digest.update(self._store.read(name, start, min(self._part_bytes, size - start)))
        return digest.hexdigest()

    def _head(self, name: str) -> Mapping[str, Any]:
        where = {**self._where(name), "ChecksumMode": "ENABLED"}
        head: Mapping[str, Any] = self._ask(name, methodcaller("head_object", **where))
        return head

    def _where(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._store.bucket, "Key": self._store.key(name)}

    def _about(self, name: str, sealed: Seal) -> dict[str, Any]:
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        said = {_WHOLE: sealed.sha256, _PARTS: sealed.checksum}
        return {"Metadata": said, "ContentType": kind, "ChecksumAlgorithm": "SHA256"}

    def _ask(self, name: str, question: Callable[[Any], s3.Answer]) -> s3.Answer:
        self._go_on()
        return self._store.ask(name, question, self._pause)

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._go_on()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _read(self, path: Path, part: Part) -> bytes:
        self._go_on()
        with path.open("rb") as file:
            file.seek(part.start)
            data = file.read(part.size)
        if hashlib.sha256(data).digest() != part.sha256:
            raise StoreError(f"{path} changed while it was sent: publish again once nothing writes there")
        return data

    def _body(self, data: bytes) -> io.BytesIO:
        return _Body(data, self._go_on)


class _Body(io.BytesIO):
    """Bytes to send, a block at a time as they are asked for, as long as `go_on` does not raise."""

    def __init__(self, data: bytes, go_on: Callable[[], None]) -> None:
        super().__init__(data)
        self._go_on = go_on

    def read(self, size: int | None = -1) -> bytes:
        self._go_on()
        return super().read(size)


def _cancel(futures: Mapping[int, Future[str]]) -> None:
    """Those that have not begun never do; the others end by themselves."""
    for future in futures.values():
        future.cancel()


def _is_ours(upload: Mapping[str, Any]) -> bool:
    return upload.get("ChecksumAlgorithm") in (None, "", "SHA256")


def _is_part(said: Mapping[str, Any], part: Part) -> bool:
    if said["Size"] != part.size:
        return False
    if "ChecksumSHA256" in said:
        return bool(said["ChecksumSHA256"] == part.checksum)
    return str(said["ETag"]).strip('"') == part.md5.hex()


def _is_md5(etag: str) -> bool:
    return _MD5_ETAG.fullmatch(etag) is not None


def _bare(checksum: str) -> str:
    """Without the number of parts, which not every server adds."""
    return checksum.partition("-")[0]
