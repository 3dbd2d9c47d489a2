"""What the first kilobytes of a download already say: format, size, frames, how coarse a JPEG is.

A picture that can't be kept is dropped with most of its bytes unread. Nothing is refused here that the whole file
would not be refused for: the kept set is the same, only the reason may be another (a small picture that is also cut
short is TOO_SMALL here, and TRUNCATED to whoever reads all of it).

JPEG is known at its first scan, PNG at its first data, WebP at its first chunk. AVIF keeps what is needed in boxes
that libavif alone should parse: it is read whole, as is what hides its header behind 256 KB of metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from curation.containers import PNG_MAGIC, Refused, glance_png, glance_webp, is_avif, not_accepted
from curation.jpeg import open_jpeg
from curation.judge import JPEG_QUALITY, Thresholds, quality, size
from curation.records import Header, Reason, Refusal, Seen, Stage

#: Lengths at which a body is looked at, bytes; `not_accepted` needs the first 4 KB.
LOOKS: Final = (1 << 12, 1 << 14, 1 << 16, 1 << 18)

#: From the first bytes of a body to what they say; None: not enough of them yet.
Look = Callable[[bytes], Seen | None]


def unseen(start: bytes) -> Seen:
    """A `Look` that wants every body whole."""
    return Seen()


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """A `Look` that refuses what these thresholds would refuse by the header alone."""

    thresholds: Thresholds
    max_pixels: int

    def __call__(self, start: bytes) -> Seen | None:
        try:
            header = read_header(start)
        except Refused as refused:
            return Seen(refusal=refused.refusal)
        if header is None:
            return None
        return Seen(header=header, refusal=self._refusal(header))

    def _refusal(self, header: Header) -> Refusal | None:
        if (pixels := header.width * header.height) > self.max_pixels:
            detail = f"{pixels} pixels, at most {self.max_pixels} allowed"
            return Refusal(reason=Reason.TOO_MANY_PIXELS, stage=Stage.DECODE, detail=detail)
        too_small = size(self.thresholds, header.width, header.height)
        return too_small or quality(self.thresholds, {JPEG_QUALITY: header.jpeg_quality})


def read_header(start: bytes) -> Header | None:
    """The header of a file whose first bytes are `start`; None where more of them are needed, or all.

    Raises `Refused` as reading the whole file would.
    """
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(start)
    if start.startswith(PNG_MAGIC):
        return glance_png(start)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return glance_webp(start)
    if is_avif(start) or len(start) < LOOKS[0]:
        return None
    refused = not_accepted(start)
    if start.startswith(b"GIF8") and refused.refusal.reason is not Reason.ANIMATED:
        return None  # its second frame may be yet to come
    raise refused


def _jpeg(start: bytes) -> Header | None:
    try:
        return open_jpeg(start).header
    except Refused as refused:
        if refused.refusal.reason is Reason.TRUNCATED:
            return None
        raise
