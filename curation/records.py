"""What flows through curation: a link, its bytes, a picture, scores, a verdict, a ledger row.

The ledger has one row per URL, kept or not. Everything the outside world can do to a URL ends in one
`Reason`; the set is closed, so that a count per reason always adds up to the list.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import numpy as np
import pyarrow as pa

SCHEMA_VERSION: Final = 3
KEY_DIGITS: Final = 16


class Stage(str, Enum):
    """Where in the flow a URL's story ended."""

    LIST = "list"
    FETCH = "fetch"
    DECODE = "decode"
    SCORE = "score"
    JUDGE = "judge"
    DUPLICATES = "duplicates"
    KEPT = "kept"


class Reason(str, Enum):
    """Why a URL is, or is not, in the data set. Closed: adding one is a change of schema version."""

    KEPT = "kept"

    # list: refused before a byte is downloaded
    URL_MALFORMED = "url_malformed"
    URL_NOT_HTTP = "url_not_http"
    URL_REPEATED = "url_repeated"
    DECLARED_TOO_SMALL = "declared_too_small"
    DECLARED_UNSAFE = "declared_unsafe"
    DECLARED_WATERMARK = "declared_watermark"
    PRIVATE_ADDRESS = "private_address"  # also after DNS, and after a redirect

    # fetch
    DNS_UNKNOWN_HOST = "dns_unknown_host"
    DNS_NO_ANSWER = "dns_no_answer"
    CONNECT_FAILED = "connect_failed"
    CONNECTION_RESET = "connection_reset"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"  # nothing came for the length of the socket time-out
    TOO_SLOW = "too_slow"  # bytes came, but not all within the URL's total deadline
    HTTP_FORBIDDEN = "http_forbidden"  # 401, 403, 451
    HTTP_NOT_FOUND = "http_not_found"  # 404, 410
    HTTP_RATE_LIMITED = "http_rate_limited"  # 429
    HTTP_CLIENT_ERROR = "http_client_error"  # any other 4xx
    HTTP_SERVER_ERROR = "http_server_error"  # 5xx
    HTTP_PROTOCOL_ERROR = "http_protocol_error"  # not HTTP, an unusable redirect, too many of them
    OPTED_OUT = "opted_out"  # X-Robots-Tag
    BODY_TRUNCATED = "body_truncated"
    BODY_TOO_LARGE = "body_too_large"
    BODY_EMPTY = "body_empty"
    NOT_MEASURED = "not_measured"  # today's thresholds let it through, its run never looked at it
    NOT_STORED = "not_stored"  # passes today's thresholds, its bytes were not kept under its run's

    # decode
    NOT_AN_IMAGE = "not_an_image"  # HTML, SVG, a git-lfs pointer, an unknown format
    FORMAT_REFUSED = "format_refused"  # a picture, in a format outside of JPEG, PNG, WebP, AVIF
    ANIMATED = "animated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_SMALL = "too_small"

    # score and judge
    FLAT = "flat"  # nothing but (near) constant areas: the statistics do not exist
    UNSCORABLE = "unscorable"  # a metric gave no finite number; the detail says which and why
    LOW_QUALITY = "low_quality"  # the detail names the metrics that voted against

    # duplicates
    DUPLICATE_EXACT = "duplicate_exact"
    DUPLICATE_NEAR = "duplicate_near"

    FORGOTTEN = "forgotten"  # removed on request; its stage is that where its story had ended before


#: What another try, later, may mend: `--retry-failed` takes these and no others.
TRANSIENT: Final = frozenset(
    {
        Reason.DNS_NO_ANSWER,
        Reason.CONNECT_FAILED,
        Reason.CONNECTION_RESET,
        Reason.TIMED_OUT,
        Reason.TOO_SLOW,
        Reason.HTTP_RATE_LIMITED,
        Reason.HTTP_SERVER_ERROR,
        Reason.BODY_TRUNCATED,
        Reason.NOT_MEASURED,
        Reason.NOT_STORED,
    }
)


def url_key(url: str) -> str:
    """The URL's identity everywhere: first 16 hex digits of SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a URL went no further, and where: the pair that every stage returns instead of raising."""

    reason: Reason
    stage: Stage
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One line of a URL list. `position`: its number in the concatenated lists, from 0; ties go to the lower."""

    position: int
    key: str
    url: str
    source: str
    caption: str | None = None
    declared_width: int | None = None
    declared_height: int | None = None
    similarity: float | None = None
    hash: int | None = None  # LAION's own, of URL and caption
    language: str | None = None
    punsafe: float | None = None
    pwatermark: float | None = None
    license: str | None = None  # as the list has it: a name or a URL


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a picture's header promises: format, size in pixels once upright, EXIF orientation (1 to 8)."""

    format: str  # "jpeg", "png", "webp", "avif"
    width: int
    height: int
    orientation: int
    jpeg_quality: float = 100.0  # libjpeg's scale of 1 to 100, from the quantisation table; 100 for other formats


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the first bytes of a file say. With a refusal, the rest of it is not worth having."""

    header: Header | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What a URL answered: its bytes exactly as they came, or a refusal."""

    key: str
    body: bytes | None
    refusal: Refusal | None
    header: Header | None  # of a picture that was refused by it
    attempts: int
    seconds: float
    bytes_read: int
    bytes_spared: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture: `pixels` (H, W, 3) uint8 RGB, sRGB, upright (EXIF orientation applied)."""

    pixels: np.ndarray = field(repr=False)
    format: str  # "jpeg", "png", "webp", "avif"
    jpeg_quality: float = 100.0  # as in `Header`

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the ledger. In `scores` a metric not computed is absent, one that gave no number is NaN."""

    link: Link
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    format: str | None = None
    sha256: str | None = None
    phash: str | None = None  # 64 bits, 16 hex digits
    scores: dict[str, float] = field(default_factory=dict)
    stored: bool = False  # the bytes are in images/<chunk>.tar
    reason: Reason = Reason.KEPT
    stage: Stage = Stage.KEPT
    detail: str = ""
    attempts: int = 0
    seconds: float = 0.0  # spent on this URL: download (all tries), decoding, scoring
    bytes_read: int = 0  # that came for this URL in all, HTTP's headers included
    bytes_spared: int = 0  # of the length the server declared, not read since the picture's header was refused
    ended: float = 0.0  # when its story ended, seconds since 1970; 0 for what no run has looked at

    @property
    def was_kept(self) -> bool:
        """Kept, or forgotten after it had been."""
        return self.reason is Reason.KEPT or (self.reason is Reason.FORGOTTEN and self.stage is Stage.KEPT)


METRIC_PREFIX: Final = "score_"
_METRIC_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")

_FIXED_FIELDS: Final = (
    pa.field("position", pa.int64(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("url", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("caption", pa.string()),
    pa.field("declared_width", pa.int32()),
    pa.field("declared_height", pa.int32()),
    pa.field("similarity", pa.float64()),
    pa.field("hash", pa.int64()),
    pa.field("language", pa.string()),
    pa.field("punsafe", pa.float32()),
    pa.field("pwatermark", pa.float32()),
    pa.field("license", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("bytes", pa.int64()),
    pa.field("format", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("phash", pa.string()),
    pa.field("stored", pa.bool_(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("stage", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
    pa.field("attempts", pa.int32(), nullable=False),
    pa.field("seconds", pa.float32(), nullable=False),
    pa.field("bytes_read", pa.int64(), nullable=False),
    pa.field("bytes_spared", pa.int64(), nullable=False),
    pa.field("ended", pa.float64(), nullable=False),
)


def ledger_schema(metrics: tuple[str, ...]) -> pa.Schema:
    """The ledger's Arrow schema: the fixed columns, then one float32 `score_<metric>` per metric.

    Raises ValueError for a metric name that could not be a column.
    """
    for metric in metrics:
        if not _METRIC_NAME.fullmatch(metric):
            raise ValueError(f"'{metric}' is no metric name: use pyiqa's, such as niqe or nima-vgg16-ava")
    scores = [pa.field(METRIC_PREFIX + metric, pa.float32()) for metric in metrics]
    return pa.schema([*_FIXED_FIELDS, *scores])
