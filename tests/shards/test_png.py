"""What `encode` writes decodes to its pixels in every reader, and has the filters that the specification asks for."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shards import strips
from shards.png import encode
from tests.shards.pictures import picture, upright

SHAPES = [(1, 1), (1, 7), (2, 1), (15, 3), (16, 16), (17, 5), (31, 64), (32, 33), (33, 32), (128, 200)]
CONTENTS = ("noise", "flat", "black", "gradient", "checks", "picture")


def drawn(content: str, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    y, x, c = np.ogrid[:height, :width, :3]
    if content == "picture":
        return np.ascontiguousarray(picture(max(height, 6), max(width, 6))[:height, :width])
    if content == "noise":
        return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    values = {
        "flat": 200 + 7 * c + 0 * x * y,
        "black": 0 * (x + y + c),
        "gradient": 3 * x + 2 * y * (c + 1),
        "checks": 255 * ((x + y + c) & 1),
    }[content]
    return (values & 255).astype(np.uint8)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each, whose CRC is right."""
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        payload = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + payload) == struct.unpack_from(">I", data, at + 8 + length)[0]
        yield kind, payload
        at += 12 + length


def filtered(data: bytes, height: int) -> np.ndarray:
    """What the whole stream inflates to, row by row; zlib checks its sum."""
    raw = zlib.decompress(b"".join(payload for kind, payload in chunks(data) if kind == b"IDAT"))
    return np.frombuffer(raw, np.uint8).reshape(height, -1)


def assert_decodes(data: bytes, pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), pixels)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_reader_finds_the_pixels(content: str, shape: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    pixels = drawn(content, *shape)
    assert_decodes(encode(pixels, 4), pixels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_at_every_level(level: int) -> None:
    pixels = drawn("picture", 100, 90)
    assert_decodes(encode(pixels, level), pixels)


def test_pixels_may_lie_anywhere_in_memory() -> None:
    pixels = drawn("picture", 90, 120)
    for view in (pixels[::-1], pixels[:, ::2], pixels.transpose(1, 0, 2), pixels[..., ::-1], np.asfortranarray(pixels)):
        assert encode(view, 4) == encode(np.ascontiguousarray(view), 4)
        assert_decodes(encode(view, 4), view)


def candidates(row: np.ndarray, above: np.ndarray) -> list[np.ndarray]:
    """A row of (W, 3) under the filters None, Sub and Up, by the formulas of the specification."""
    left = np.concatenate([np.zeros((1, 3), int), row[:-1]])
    return [((row - guess) & 255).astype(np.uint8) for guess in (0 * row, left, above)]


@pytest.mark.parametrize("content", CONTENTS)
def test_each_row_has_the_filter_of_the_least_sum(content: str) -> None:
    pixels = drawn(content, 70, 61).astype(int)
    for y, line in enumerate(filtered(encode(pixels.astype(np.uint8), 4), 70)):
        allowed = candidates(pixels[y], pixels[max(y - 1, 0)])[: 3 if y % strips.ROWS else 2]
        sums = [int(np.abs(one.view(np.int8).astype(int)).sum()) for one in allowed]
        assert line[0] == int(np.argmin(sums))
        assert np.array_equal(line[1:], allowed[line[0]].ravel())


def test_all_three_filters_occur() -> None:
    assert set(filtered(encode(drawn("noise", 999, 9), 4), 999)[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 3), np.int8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="can write"):
        encode(pixels, 4)


@pytest.mark.slow
def test_strips_cost_few_bytes_of_real_photographs(photos: Path) -> None:
    mine = theirs = 0
    for path in sorted(photos.glob("*.png")) + sorted(photos.glob("*.webp")) + sorted(photos.glob("*.jpg"))[::9]:
        pixels = np.ascontiguousarray(upright(path.read_bytes())[300:812, 200:712])
        data, buffer = encode(pixels, 4), io.BytesIO()
        assert_decodes(data, pixels)
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
        mine += len(data)
        theirs += len(buffer.getvalue())
    assert 0 < mine < 1.03 * theirs
