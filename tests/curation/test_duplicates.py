"""Which of two stays, checked against the definition by brute force."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.duplicates import DEFAULT_MAX_DISTANCE, Duplicate, find_duplicates, perceptual_hash
from curation.records import Reason


def _digits(hashes: Sequence[int] | np.ndarray) -> list[str]:
    return [f"{int(value):016x}" for value in hashes]


def _different_bytes(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


def _by_definition(sha256: list[str], hashes: list[int], max_distance: int) -> list[Duplicate | None]:
    found: list[Duplicate | None] = []
    for i, value in enumerate(hashes):
        found.append(None)
        for j in range(i):
            bits = (value ^ hashes[j]).bit_count()
            if found[j] is None and (sha256[i] == sha256[j] or bits <= max_distance):
                exact = sha256[i] == sha256[j]
                reason = Reason.DUPLICATE_EXACT if exact else Reason.DUPLICATE_NEAR
                found[i] = Duplicate(reason=reason, of=j, distance=bits)
                break
    return found


@st.composite
def _lists(draw: st.DrawFn) -> tuple[list[str], list[int], int]:
    """Hashes around a few centres, so that neighbours, chains of neighbours and copies are common."""
    centres = [0, *draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))]
    hashes = []
    for _ in range(draw(st.integers(0, 40))):
        value = draw(st.sampled_from(centres))
        for bit in draw(st.lists(st.integers(0, 63), max_size=8)):
            value ^= 1 << bit
        hashes.append(value)
    names = draw(st.lists(st.integers(0, 60), min_size=len(hashes), max_size=len(hashes)))
    return [f"{name:064x}" for name in names], hashes, draw(st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(_lists())
def test_equals_the_definition(case: tuple[list[str], list[int], int]) -> None:
    sha256, hashes, max_distance = case
    assert find_duplicates(sha256, _digits(hashes), max_distance) == _by_definition(sha256, hashes, max_distance)


@pytest.mark.parametrize("max_distance", [0, 1, 4, 7, 12])
def test_equals_the_definition_among_many(max_distance: int) -> None:
    rng = np.random.default_rng(max_distance)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)[rng.integers(0, 60, 1200)]
    for _ in range(6):
        hashes ^= np.uint64(1) << rng.integers(0, 64, 1200, dtype=np.uint64)
    sha256 = _different_bytes(1200)
    expected = _by_definition(sha256, [int(h) for h in hashes], max_distance)
    assert find_duplicates(sha256, _digits(hashes), max_distance) == expected


def test_same_bytes_are_exact_and_alike_looks_are_near() -> None:
    found = find_duplicates(["a", "b", "a", "c"], _digits([0, 0b11, 0, 2**64 - 1]), 4)
    assert found == [
        None,
        Duplicate(reason=Reason.DUPLICATE_NEAR, of=0, distance=2),
        Duplicate(reason=Reason.DUPLICATE_EXACT, of=0, distance=0),
        None,
    ]


def test_what_was_dropped_drops_nothing() -> None:
    chain = [0, 0b111, 0b111111]  # neighbours are 3 apart, the ends 6
    found = find_duplicates(_different_bytes(3), _digits(chain), 4)
    assert [entry and entry.of for entry in found] == [None, 0, None]


def test_two_million_entries_take_about_a_minute_at_most() -> None:
    """A twentieth of that here; half of the list is one degenerate hash, as flat pictures give."""
    count = 100_000
    hashes = np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)
    hashes[::2] = 1 << 63
    sha256, phash = _different_bytes(count), _digits(hashes)
    find_duplicates(sha256[:2], phash[:2])  # compile
    start = time.process_time()
    found = find_duplicates(sha256, phash)
    assert time.process_time() - start < 3
    assert sum(entry is None for entry in found) == count // 2 + 1


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["random", "ball"])
def test_two_million_entries(spread: str) -> None:
    """Also a million different hashes within five bits of one another's centre: the kept ones stay few."""
    count = 2_000_000
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    if spread == "ball":
        hashes[::2] = 0
        for _ in range(5):
            hashes[::2] ^= np.uint64(1) << rng.integers(0, 64, count // 2, dtype=np.uint64)
    sha256, phash = [str(i) for i in range(count)], _digits(hashes)
    start = time.process_time()
    found = find_duplicates(sha256, phash)
    assert time.process_time() - start < 60
    assert all(entry is None or entry.distance <= DEFAULT_MAX_DISTANCE for entry in found)


@pytest.mark.parametrize(
    ("sha256", "phash", "max_distance", "named"),
    [
        (["a"], [], 4, "one of each"),
        (["a"], ["12"], 4, "16 hex digits"),
        (["a"], ["xyzxyzxyzxyzxyzx"], 4, "16 hex digits"),
        (["a"], ["0" * 16], 13, "max_distance"),
        (["a"], ["0" * 16], -1, "max_distance"),
    ],
)
def test_a_mistake_is_named(sha256: list[str], phash: list[str], max_distance: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        find_duplicates(sha256, phash, max_distance)


def _picture(seed: int, height: int = 600, width: int = 800) -> Image.Image:
    """Smooth random colours, as far from each other as two photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _distance(a: Image.Image, b: Image.Image) -> int:
    first, second = (perceptual_hash(np.asarray(picture)) for picture in (a, b))
    return (int(first, 16) ^ int(second, 16)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_an_edited_picture_is_found_and_another_is_not(seed: int) -> None:
    picture = _picture(seed)
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=50)
    assert _distance(picture, Image.open(packed)) <= DEFAULT_MAX_DISTANCE
    assert _distance(picture, picture.resize((400, 300))) <= DEFAULT_MAX_DISTANCE
    assert _distance(picture, picture.convert("L").convert("RGB")) <= DEFAULT_MAX_DISTANCE
    assert _distance(picture, _picture(seed + 100)) > DEFAULT_MAX_DISTANCE
    assert _distance(picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > DEFAULT_MAX_DISTANCE


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (128, 128), (129, 129), (700, 40)])
def test_any_shape_has_a_hash_of_sixteen_digits(shape: tuple[int, int]) -> None:
    digits = perceptual_hash(np.full((*shape, 3), 200, np.uint8))
    assert len(digits) == 16
    assert int(digits, 16) >= 0


def test_the_hash_is_that_of_imagehash_within_two_bits() -> None:
    picture = _picture(7, 1500, 2100)
    reference = int(str(imagehash.phash(picture)), 16)
    assert (int(perceptual_hash(np.asarray(picture)), 16) ^ reference).bit_count() <= 2
