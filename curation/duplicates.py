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

Four is the default: false pairs grow with the square of the list, edits do not. Mirrored and turned copies are more
than 12 bits away and stay. All flat pictures have one hash: refuse them before.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
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
_WIDEST_KEY: Final = 21  # bits: a table of two million buckets, 8 MB
_LARGEST_PAIRED: Final = 4  # bits: beyond, pairs of bands are too many tables, and too narrow
_ODD: Final = 0x9E3779B97F4A7C15  # 2 ** 64 over the golden ratio


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

    `repeats` for few entries. Raises ValueError for columns of unequal length, and what `hash_values` and `repeats` do.
    """
    if len(sha256) != len(phash):
        raise ValueError(f"{len(sha256)} SHA-256 and {len(phash)} perceptual hashes: give one of each per picture")
    of, distance = repeats(identities(sha256), hash_values(phash), max_distance)
    return [
        None if kept < 0 else _duplicate(kept, bits, sha256[i] == sha256[kept])
        for i, (kept, bits) in enumerate(zip(of.tolist(), distance.tolist(), strict=True))
    ]


def identities(texts: Iterable[str]) -> np.ndarray:
    """(N, 2) uint64: equal for equal texts, and for no others (128 bits of a SHA-256)."""
    return np.frombuffer(b"".join(hashlib.sha256(t.encode()).digest()[:16] for t in texts), np.uint64).reshape(-1, 2)


def hash_values(phash: Sequence[str]) -> np.ndarray:
    """(N,) uint64. Raises ValueError for a hash that is not 16 hex digits."""
    for text in phash:
        if not _HASH.fullmatch(text):
            raise ValueError(f"'{text}' is no perceptual hash: give 16 hex digits")
    return np.frombuffer(bytes.fromhex("".join(phash)), ">u8").astype(np.uint64)


def repeats(identity: np.ndarray, hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int32: the earliest kept entry before it that each entry repeats, -1 where it stays; (N,) uint8: their bits.

    `identity`: (N, 2) uint64, equal where the bytes are (`identities`); `hashes`: (N,) uint64. An entry repeats a kept
    one with the same bytes or with a hash at most `max_distance` bits away. What was dropped drops nothing, so a chain
    of small changes does not carry far. Depends on the order of the list alone.

    Exact multi-index search (Norouzi et al. 2012): of d + 2 bands, hashes within d bits agree in at least two, so only
    kept hashes that share a pair of bands are compared: 3e7 hashes within 4 bits make 15 tables of 2 million buckets of
    14, where single bands make buckets of 7,000. Dropped ones are never stored: a million copies cost no more than a
    million look-ups. Memory: 4 bytes a table and 35 more, 95 a hash within 4 bits.

    Raises ValueError for a distance out of range.
    """
    if not 0 <= max_distance <= LARGEST_MAX_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}: give 0 to {LARGEST_MAX_DISTANCE} bits")
    bands, together = (max_distance + 2, 2) if 0 < max_distance <= _LARGEST_PAIRED else (max_distance + 1, 1)
    mixed = _interleaved(hashes, bands)
    tables = _tables(bands, together)
    width = min(_WIDEST_KEY, together * (_HASH_BITS // bands), len(mixed).bit_length())
    return _first_kept(mixed, identity, _bucket_starts(mixed, tables, width), tables, width, max_distance)


def _duplicate(of: int, distance: int, same_bytes: bool) -> Duplicate:
    reason = Reason.DUPLICATE_EXACT if same_bytes else Reason.DUPLICATE_NEAR
    return Duplicate(reason=reason, of=of, distance=distance)


def _interleaved(hashes: np.ndarray, bands: int) -> np.ndarray:
    """The same bits in another order, bit i of the hash in band i % bands: neighbouring frequencies go together."""
    mixed = np.zeros_like(hashes)
    source = [bit for band in range(bands) for bit in range(band, _HASH_BITS, bands)]
    for target, bit in enumerate(source):
        mixed |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(target)
    return mixed


def _tables(bands: int, together: int) -> np.ndarray:
    """(tables,) uint64: the bits of an interleaved hash that each table looks at, so many bands of it together."""
    wide = _HASH_BITS % bands  # the first bands have one bit more
    ends = [(band + 1) * (_HASH_BITS // bands) + min(band + 1, wide) for band in range(bands)]
    masks = [(1 << end) - (1 << begin) for begin, end in zip([0, *ends], ends, strict=False)]
    return np.array([sum(chosen) for chosen in itertools.combinations(masks, together)], np.uint64)


@numba.njit(cache=True, nogil=True)
def _bucket_starts(mixed: np.ndarray, tables: np.ndarray, width: int) -> np.ndarray:
    """(tables, buckets + 1) int32: where each bucket of each table starts, if all hashes were kept."""
    starts = np.zeros((tables.size, (1 << width) + 1), np.int32)
    for table in range(tables.size):
        for value in mixed:
            starts[table, _bucket(value, tables[table], width) + 1] += 1
        for bucket in range(1 << width):
            starts[table, bucket + 1] += starts[table, bucket]
    return starts


@numba.njit(cache=True, nogil=True, inline="always")
def _bucket(value: np.uint64, mask: np.uint64, width: int) -> int:
    """One of 2 ** width buckets, by all the bits of the mask (Knuth's multiplicative hash)."""
    return np.int64((((value & mask) * np.uint64(_ODD)) >> np.uint64(1)) >> np.uint64(63 - width))


@numba.njit(cache=True, nogil=True)
def _first_kept(
    mixed: np.ndarray, identity: np.ndarray, starts: np.ndarray, tables: np.ndarray, width: int, max_distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """See `repeats`."""
    count = mixed.size
    of, distance = np.full(count, -1, np.int32), np.zeros(count, np.uint8)
    slots = 2  # open addressing, at most half full: the first kept entry with the same bytes
    while slots < 2 * count:
        slots *= 2
    by_bytes = np.full(slots, -1, np.int32)
    stored = np.empty((tables.size, count), np.int32)  # kept entries, by table and bucket, in list order
    ends = starts[:, :-1].copy()
    for i in range(count):
        slot = np.int64(identity[i, 0] & np.uint64(slots - 1))
        while by_bytes[slot] >= 0 and (identity[by_bytes[slot]] != identity[i]).any():
            slot = (slot + 1) & (slots - 1)
        best = by_bytes[slot]
        for table in range(tables.size):
            bucket = _bucket(mixed[i], tables[table], width)
            for place in range(starts[table, bucket], ends[table, bucket]):
                other = stored[table, place]
                if 0 <= best <= other:
                    break
                if _bits_apart(mixed[other], mixed[i]) <= max_distance:
                    best = other
                    break
        if best >= 0:
            of[i], distance[i] = best, _bits_apart(mixed[best], mixed[i])
            continue
        by_bytes[slot] = i
        for table in range(tables.size):
            bucket = _bucket(mixed[i], tables[table], width)
            stored[table, ends[table, bucket]] = i
            ends[table, bucket] += 1
    return of, distance


@numba.njit(cache=True, nogil=True, inline="always")
def _bits_apart(a: np.uint64, b: np.uint64) -> int:
    """Hamming distance by counting in parallel; the compiler makes it one POPCNT."""
    x = a ^ b
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
