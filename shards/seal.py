"""What a file is, whole and in parts, read once: to be compared with what a server has of it.

SHA-256 and MD5 together take about 3 s a GB on one core; MD5 is what servers without checksums answer with.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PART_BYTES: Final = 8 << 20  # S3 wants 5 MiB at least, but for the last

_MOST_PARTS: Final = 9_000  # S3 takes 10,000
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of a file: where it lies, in bytes, and what it is."""

    number: int  # from 1
    start: int
    size: int
    sha256: bytes
    md5: bytes

    @property
    def checksum(self) -> str:
        """The SHA-256 as S3 writes it."""
        return base64.b64encode(self.sha256).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """What a file is: its length in bytes, the SHA-256 of the whole in hex digits, its parts."""

    size: int
    sha256: str
    parts: tuple[Part, ...]

    @property
    def checksum(self) -> str:
        """What S3 has as the object's ChecksumSHA256: of several parts, the SHA-256 of their SHA-256s."""
        if len(self.parts) == 1:
            return self.parts[0].checksum
        whole = hashlib.sha256(b"".join(part.sha256 for part in self.parts))
        return f"{base64.b64encode(whole.digest()).decode()}-{len(self.parts)}"

    @property
    def etag(self) -> str:
        """What most S3 servers have as its ETag, where it is not encrypted with a key of the user's."""
        if len(self.parts) == 1:
            return self.parts[0].md5.hex()
        whole = hashlib.md5(b"".join(part.md5 for part in self.parts), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(self.parts)}"


def seal(path: Path, part_bytes: int = PART_BYTES) -> Seal:
    """Reads the file once. Parts are larger where S3's 10,000 of them would not do."""
    size = path.stat().st_size
    step = max(part_bytes, -(-size // _MOST_PARTS))
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        for number, start in enumerate(range(0, max(size, 1), step), 1):
            one, md5, left = hashlib.sha256(), hashlib.md5(usedforsecurity=False), min(step, size - start)
            length = left
            while left and (block := file.read(min(_BLOCK, left))):
                for digest in (whole, one, md5):
                    digest.update(block)
                left -= len(block)
            parts.append(Part(number=number, start=start, size=length, sha256=one.digest(), md5=md5.digest()))
    return Seal(size=size, sha256=whole.hexdigest(), parts=tuple(parts))
