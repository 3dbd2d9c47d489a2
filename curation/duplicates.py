"""Which pictures of a list repeat an earlier one: by bytes (SHA-256) or by look (perceptual hash).

The look is a 64-bit DCT hash; two hashes differ in an even number of bits, as half of them are set. Share of edited
copies found, of 56 photographs, by largest distance, and pairs taken for one among 698,815 pairs of 512 px patches
of different photographs (among the 1,540 pairs of whole photographs: none up to 14 bits):

    largest distance               0     2     4     6     8    10    12
    JPEG 75 or 50, scaled, grey  0.88  1.00  1.00  1.00  1.00  1.00  1.00
    cropped by 2 %               0.12  0.73  0.93  1.00  1.00  1.00  1.00
    20 % brighter                0.32  0.75  0.93  1.00  1.00  1.00  1.00
    small text in a corner       0.12  0.50  0.79  0.89  0.98  0.98  0.98
    different, taken for one        0     1     1     3     4    11    27
    seconds for 2 million hashes    2     3     8    33  >100

Four is the default: false pairs grow with the square of the list, edits do not. Mirrored and turned copies are more
than 12 bits away and stay. All flat pictures have one hash: refuse them before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import imagehash
import numba
import numpy as np
from PIL import Image

from curation.records import Reason

DEFAULT_MAX_DISTANCE: Final = 4
#: Beyond this chance neighbours outnumber copies, and the bands are too narrow to help.
LARGEST_MAX_DISTANCE: Final = 12
_HASH_BITS: Final = 64
_HASH: Final = re.compile(r"[0-9a-fA-F]{16}")
_SHRUNK: Final = 256
_WIDEST_BAND: Final = 20  # bits: a table of a million buckets


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """A picture that goes: why, the index of the one that stays, and in how many bits their hashes differ."""

    reason: Reason
    of: int
    distance: int


def perceptual_hash(pixels: np.ndarray) -> str:
    """64-bit DCT hash of (H, W, 3) uint8 RGB, as 16 hex digits (Zauner 2010, section 3.2; imagehash's `phash`).

    Grey and averaged down to 256 × 256 first: 41 ms instead of 161 for 24 megapixels, and the hash of the full
    picture on all of 56 photographs.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if min(grey.shape) > _SHRUNK:
        grey = cv2.resize(grey, (_SHRUNK, _SHRUNK), interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(grey)))


def find_duplicates(
    sha256: Sequence[str], phash: Sequence[str], max_distance: int = DEFAULT_MAX_DISTANCE
) -> list[Duplicate | None]:
    """For each entry, in list order, the earliest kept one before it that it repeats; None where it stays.

    An entry repeats a kept one with the same SHA-256 (`DUPLICATE_EXACT`) or with a perceptual hash at most
    `max_distance` bits away (`DUPLICATE_NEAR`). What was dropped drops nothing, so a chain of small changes does
    not carry far. Depends on the order of the list alone.

    Exact multi-index search (Norouzi et al. 2012): hashes within d bits agree in at least one of d + 1 bands, so
    only kept hashes of the same band are compared. Dropped ones are never stored: a million copies cost no more
    than a million look-ups.

    Raises ValueError for columns of unequal length, a hash that is not 16 hex digits, or a distance out of range.
    """
    if len(sha256) != len(phash):
        raise ValueError(f"{len(sha256)} SHA-256 and {len(phash)} perceptual hashes: give one of each per picture")
    if not 0 <= max_distance <= LARGEST_MAX_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}: give 0 to {LARGEST_MAX_DISTANCE} bits")
    if not phash:
        return []
    hashes = _parsed(phash)
    mixed = _interleaved(hashes, max_distance + 1)
    of, distance = _first_kept(mixed, _numbered(sha256), _bucket_starts(mixed, max_distance + 1), max_distance)
    return [
        None if kept < 0 else _duplicate(kept, bits, sha256[i] == sha256[kept])
        for i, (kept, bits) in enumerate(zip(of.tolist(), distance.tolist(), strict=True))
    ]


def _duplicate(of: int, distance: int, same_bytes: bool) -> Duplicate:
    reason = Reason.DUPLICATE_EXACT if same_bytes else Reason.DUPLICATE_NEAR
    return Duplicate(reason=reason, of=of, distance=distance)


def _parsed(phash: Sequence[str]) -> np.ndarray:
    """(N,) uint64."""
    for text in phash:
        if not _HASH.fullmatch(text):
            raise ValueError(f"'{text}' is no perceptual hash: give 16 hex digits")
    return np.fromiter((int(text, 16) for text in phash), np.uint64, len(phash))


def _numbered(texts: Sequence[str]) -> np.ndarray:
    """(N,) int64: equal texts get equal numbers, from 0 up."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))


def _interleaved(hashes: np.ndarray, bands: int) -> np.ndarray:
    """The same bits in another order, bit i of the hash in band i % bands: neighbouring frequencies go together."""
    mixed = np.zeros_like(hashes)
    source = [bit for band in range(bands) for bit in range(band, _HASH_BITS, bands)]
    for target, bit in enumerate(source):
        mixed |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(target)
    return mixed


def _bucket_starts(mixed: np.ndarray, bands: int) -> np.ndarray:
    """(bands, buckets + 1) int64: where each bucket of each band starts, if all hashes were kept.

    Buckets are a power of two, at most about as many as hashes, numbered by a band's lowest bits.
    """
    buckets = 1 << min(_HASH_BITS // bands, _WIDEST_BAND, len(mixed).bit_length())
    starts = np.zeros((bands, buckets + 1), np.int64)
    for band in range(bands):
        keys = (mixed >> np.uint64(_band_shift(band, bands))) & np.uint64(buckets - 1)
        np.cumsum(np.bincount(keys.astype(np.int64), minlength=buckets), out=starts[band, 1:])
    return starts


@numba.njit(cache=True, nogil=True)
def _band_shift(band: int, bands: int) -> int:
    """First bit of a band in an interleaved hash: the first 64 % bands of them have one bit more."""
    return band * (64 // bands) + min(band, 64 % bands)


@numba.njit(cache=True, nogil=True)
def _first_kept(
    mixed: np.ndarray, same_bytes: np.ndarray, starts: np.ndarray, max_distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 earliest kept entry each one repeats, -1 where it stays; (N,) int64 bits between the two."""
    count, bands, buckets = mixed.size, starts.shape[0], starts.shape[1] - 1
    of, distance = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    by_bytes = np.full(count, -1, np.int64)  # first kept entry with these bytes
    stored, stored_at = np.empty((bands, count), np.uint64), np.empty((bands, count), np.int32)
    ends = starts[:, :-1].copy()
    for i in range(count):
        best = by_bytes[same_bytes[i]]
        for band in range(bands):
            key = np.int64((mixed[i] >> np.uint64(_band_shift(band, bands))) & np.uint64(buckets - 1))
            for slot in range(starts[band, key], ends[band, key]):
                if _bits_apart(stored[band, slot], mixed[i]) <= max_distance:
                    if best < 0 or stored_at[band, slot] < best:
                        best = np.int64(stored_at[band, slot])
                    break  # a bucket is in list order
        if best >= 0:
            of[i], distance[i] = best, _bits_apart(mixed[best], mixed[i])
            continue
        by_bytes[same_bytes[i]] = i
        for band in range(bands):
            key = np.int64((mixed[i] >> np.uint64(_band_shift(band, bands))) & np.uint64(buckets - 1))
            slot = ends[band, key]
            stored[band, slot], stored_at[band, slot] = mixed[i], i
            ends[band, key] = slot + 1
    return of, distance


@numba.njit(cache=True, nogil=True, inline="always")
def _bits_apart(a: np.uint64, b: np.uint64) -> int:
    """Hamming distance by counting in parallel; the compiler makes it one POPCNT."""
    x = a ^ b
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
