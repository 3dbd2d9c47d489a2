"""What `encode` writes holds every coefficient it was given, read by libjpeg, and is what libjpeg itself would code."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import jpeglib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.entropy import ROWS, Plane, encode, without_rows
from shards.segments import marker

Factors = tuple[tuple[int, int], ...]
LAYOUTS: dict[str, Factors] = {
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((1, 2), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:4:0": ((2, 1), (1, 1), (1, 1)),
    "4:1:1": ((1, 4), (1, 1), (1, 1)),
    "odd": ((2, 2), (2, 1), (1, 2)),
    "grey": ((1, 1),),
}
CONTENTS = ("zero", "sparse", "dense", "extreme", "runs")
NO_RESTART = 65535
TABLE = np.arange(1, 65, dtype=np.uint16).reshape(8, 8)


def coefficients(content: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(rows, columns, 8, 8) int16."""
    blocks = np.zeros((*shape, 64), np.int16)
    if content == "sparse":
        blocks[:] = rng.integers(-40, 41, blocks.shape) * (rng.random(blocks.shape) < 0.1)
    elif content == "dense":
        blocks[:] = rng.integers(-1023, 1024, blocks.shape)
    elif content == "extreme":
        blocks[:] = rng.choice([-1023, 1023], blocks.shape)
        blocks[..., 0] = rng.choice([-1024, 1023], shape)  # differences up to 2047
    elif content == "runs":  # of 15, 16, 17, 61 and 62 zeros, to the end or not: ZRL and EOB, one or both or none
        for places in ([0, 16], [0, 17], [0, 18], [0, 62], [63], []):
            chosen = rng.random(shape) < 0.2
            blocks[np.ix_(*map(np.arange, shape), places)] += chosen[..., None].astype(np.int16)
    return blocks.reshape(*shape, 8, 8)


def planes_of(factors: Factors, content: str, down: int, across: int, seed: int = 0) -> list[Plane]:
    rng = np.random.default_rng(seed)
    return [
        Plane(blocks=coefficients(content, (down * v, across * h), rng), table=TABLE + i, factors=(v, h))
        for i, (v, h) in enumerate(factors)
    ]


def read(data: bytes, folder: Path) -> jpeglib.DCTJPEG:
    (folder / "x.jpg").write_bytes(data)
    with jpeglib.version("turbo210"):
        jpeg = jpeglib.read_dct(str(folder / "x.jpg"))
        jpeg.load()
    return jpeg


def by_libjpeg(planes: Sequence[Plane], folder: Path) -> bytes:
    """The same coefficients as libjpeg codes them, Huffman tables optimised, no restart markers."""
    blocks = [plane.blocks for plane in planes]
    rows, columns = (8 * extent for extent in blocks[0].shape[:2])
    jpeg = jpeglib.DCTJPEG(
        path=None,
        content=None,
        height=rows * max(plane.factors[0] for plane in planes) // planes[0].factors[0],
        width=columns * max(plane.factors[1] for plane in planes) // planes[0].factors[1],
        block_dims=np.array([block.shape[:2] for block in blocks], np.int32),
        samp_factor=np.array([plane.factors for plane in planes], np.int32),
        markers=None,
        huffmans=None,
        jpeg_color_space=jpeglib.JCS_YCbCr if len(planes) > 1 else jpeglib.JCS_GRAYSCALE,
        progressive_mode=False,
        num_scans=1,
        Y=blocks[0],
        Cb=blocks[1] if len(planes) > 1 else None,
        Cr=blocks[2] if len(planes) > 1 else None,
        K=None,
        qt=np.stack([plane.table for plane in planes]),
        quant_tbl_no=np.arange(len(planes)),
    )
    with jpeglib.version("turbo210"):
        jpeg.write_dct(str(folder / "y.jpg"), flags=["+OPTIMIZE_CODING"])
    return (folder / "y.jpg").read_bytes()


def scan_of(data: bytes) -> bytes:
    """The coded data with the restart markers in it."""
    header = data.index(b"\xff\xda")
    return data[header + 2 + int.from_bytes(data[header + 2 : header + 4], "big") : -2]


def assert_holds(data: bytes, planes: Sequence[Plane], folder: Path) -> None:
    jpeg = read(data, folder)
    for i, (plane, found) in enumerate(zip(planes, (jpeg.Y, jpeg.Cb, jpeg.Cr), strict=False)):
        assert np.array_equal(found, plane.blocks)
        assert np.array_equal(jpeg.get_component_qt(i), plane.table)
    assert [tuple(pair) for pair in jpeg.samp_factor] == [plane.factors for plane in planes]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_says_how_long_each_row_is(layout: str) -> None:
    """Where a whole number of segments makes a row; and leaves the rest as it was without that."""
    planes = planes_of(LAYOUTS[layout], "dense", down=4, across=6)
    for interval in (1, 3, 6):
        data, across = encode(planes, interval), 6 // interval
        plain, at = without_rows(data), data.index(ROWS) + len(ROWS)
        lengths = struct.unpack(">4H", data[at : at + 8])
        begin, *ends = itertools.accumulate(lengths, initial=len(data) - sum(lengths))
        assert data[begin:-2] == scan_of(data) == scan_of(plain)
        expected = [bytes([0xFF, marker(across * row - 1, across * 4)]) for row in (1, 2, 3, 4)]
        assert [data[end - 2 : end] for end in ends] == expected
        assert data[: at - 4 - len(ROWS)] + data[at + 8 :] == plain == without_rows(plain)
    assert encode(planes, 5) == without_rows(encode(planes, 5))


@pytest.mark.parametrize(("layout", "content"), list(itertools.product(LAYOUTS, CONTENTS)))
def test_every_coefficient_and_table_is_kept(layout: str, content: str, tmp_path: Path) -> None:
    planes = planes_of(LAYOUTS[layout], content, down=4, across=6)
    for interval in (1, 3, 6, NO_RESTART):
        assert_holds(encode(planes, interval), planes, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    content=st.sampled_from(CONTENTS),
    down=st.integers(1, 4),
    across=st.integers(1, 4),
    interval=st.integers(1, 17),
    seed=st.integers(0, 2**32),
)
def test_any_small_picture_is_kept(
    layout: str,
    content: str,
    down: int,
    across: int,
    interval: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    planes = planes_of(LAYOUTS[layout], content, down, across, seed)
    assert_holds(encode(planes, interval), planes, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(("layout", "content"), list(itertools.product(LAYOUTS, CONTENTS)))
def test_without_restart_markers_it_is_what_libjpeg_codes(layout: str, content: str, tmp_path: Path) -> None:
    """Same tables by the same procedure (T.81, K.2), so the same coded data, byte by byte."""
    planes = planes_of(LAYOUTS[layout], content, down=4, across=6)
    assert scan_of(encode(planes, NO_RESTART)) == scan_of(by_libjpeg(planes, tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_decodes_to_what_libjpeg_s_file_decodes_to(layout: str, tmp_path: Path) -> None:
    planes = planes_of(LAYOUTS[layout], "sparse", down=4, across=6)
    mine, theirs = encode(planes, 3), by_libjpeg(planes, tmp_path)
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (mine, theirs)]
    assert np.array_equal(*pixels)
    opened = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in (mine, theirs)]
    assert np.array_equal(*opened)
    if layout != "odd":  # the two libjpegs filter such chroma differently
        assert np.array_equal(pixels[0], opened[0])


@pytest.mark.parametrize("interval", [1, 2, 5, 24])
def test_restart_markers_count_from_0_to_7_over_and_over(interval: int) -> None:
    data = scan_of(encode(planes_of(LAYOUTS["4:2:0"], "dense", down=4, across=6), interval))
    behind = [data[at + 1] for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1]]
    assert behind == [0xD0 + i % 8 for i in range(-(-24 // interval) - 1)]


def test_codes_longer_than_sixteen_bits_are_shortened(tmp_path: Path) -> None:
    """Frequencies that grow a little faster than Fibonacci's numbers make Huffman's tree a chain."""
    counts = [1, 2]
    while len(counts) < 20:
        counts.append(counts[-1] + counts[-2] + 1)
    places = [(zeros, category) for zeros in range(10) for category in (1, 2)]
    blocks = np.zeros((-(-sum(counts) // 64) * 64, 64), np.int16)
    for (zeros, category), rows in zip(places, np.split(blocks, np.cumsum(counts)), strict=False):
        rows[:, [1, 8, 16, 9, 2, 3, 10, 17, 24, 32][zeros]] = 1 << (category - 1)
    plane = Plane(blocks=blocks.reshape(-1, 64, 8, 8), table=TABLE, factors=(1, 1))
    data = encode([plane], 64)
    assert_holds(data, [plane], tmp_path)
    tables = data.index(b"\xff\xc4") + 4
    ac = tables + 17 + sum(data[tables + 1 : tables + 17])
    lengths = data[ac + 1 : ac + 17]
    assert (data[ac], sum(lengths)) == (0x10, 21)
    assert lengths[15] > 0
    assert sum(count << (15 - i) for i, count in enumerate(lengths)) < 1 << 16, "none is all ones"


def test_tables_beyond_a_byte_are_kept_as_extended_sequential(tmp_path: Path) -> None:
    planes = [
        Plane(blocks=plane.blocks, table=plane.table * 300, factors=plane.factors)
        for plane in planes_of(LAYOUTS["4:2:0"], "sparse", down=2, across=2)
    ]
    data = encode(planes, 2)
    assert b"\xff\xc1" in data[:700]
    assert_holds(data, planes, tmp_path)


def test_the_bytes_are_a_function_of_the_values_alone() -> None:
    planes = planes_of(LAYOUTS["4:2:2"], "dense", down=4, across=6)
    strided = [
        Plane(blocks=np.asfortranarray(plane.blocks), table=np.asfortranarray(plane.table), factors=plane.factors)
        for plane in planes
    ]
    assert encode(planes, 6) == encode(planes, 6) == encode(strided, 6)


def grey(value: int, place: int, shape: tuple[int, int] = (1, 1)) -> list[Plane]:
    blocks = np.zeros((*shape, 64), np.int16)
    blocks[0, 0, place] = value
    return [Plane(blocks=blocks.reshape(*shape, 8, 8), table=TABLE, factors=(1, 1))]


@pytest.mark.parametrize(
    ("planes", "interval", "words"),
    [
        (grey(1024, 0), 1, "coefficients"),
        (grey(-1025, 0), 1, "coefficients"),
        (grey(-1024, 1), 1, "coefficients"),
        (grey(1024, 63), 1, "coefficients"),
        (grey(0, 0), 0, "interval of 0"),
        (grey(0, 0), 65536, "interval of 65536"),
        (grey(0, 0) * 2, 1, "2 components"),
        (planes_of(((2, 2), (2, 2), (2, 2)), "zero", 1, 1), 1, "at most 10 blocks"),
        (planes_of(((1, 5), (1, 1), (1, 1)), "zero", 1, 1), 1, "each can be 1 to 4"),
        (planes_of(((2, 2), (1, 1), (1, 1)), "zero", 1, 1)[:1] + grey(0, 0, (2, 2)) * 2, 1, "whole MCUs"),
        (
            [Plane(blocks=np.zeros((1, 8192, 8, 8), np.int16), table=TABLE, factors=(1, 1))],
            1,
            "65536x8 pixels",
        ),
    ],
)
def test_what_baseline_jpeg_can_not_hold_is_refused(planes: list[Plane], interval: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode(planes, interval)
