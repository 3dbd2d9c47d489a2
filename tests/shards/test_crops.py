"""A crop is the window of the whole decode, level by level; what doesn't hold it is a DecodeError and nothing else."""

from __future__ import annotations

import io
import itertools
import os
import random
import struct
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shards import entropy, segments
from shards.codec import JPEG_DCT, SUFFIX, cut
from shards.crops import DecodeError, decode_crop, decode_crop_into, decode_part_into
from shards.entropy import Plane
from shards.patches import Box
from shards.png import encode
from tests.shards.pictures import KINDS, encoded, oriented, picture, segment, upright

EDGES = (0, 1, 2, 3, 6, 7, 8, 9, 14, 15, 16, 17, 23, 24, 25, 30, 31, 32, 33, 34, 47, 48, 49, 63, 64, 65)


def patches(kind: str, size: int = 256, height: int = 256, width: int = 512) -> list[bytes]:
    """As they are in the shards: with restart markers."""
    body = encoded(picture(height, width), kind)
    found = cut(body, upright(body), format="jpeg", size=size, max_flat=1.0).patches
    assert {patch.codec for patch in found} == {JPEG_DCT}
    return [patch.data for patch in found]


def encoded_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def whole(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def window(pixels: np.ndarray, box: Box) -> np.ndarray:
    return pixels[box.top : box.top + box.size, box.left : box.left + box.size]


def boxes(height: int, width: int, size: int) -> list[Box]:
    """Corners near the edges of MCUs, restart segments and the picture."""
    tops = [top for top in EDGES if top + size <= height] + [height - size - i for i in range(3)]
    lefts = [left for left in EDGES if left + size <= width] + [width - size - i for i in range(3)]
    chosen = itertools.chain(itertools.product(tops, lefts[::5]), itertools.product(tops[::5], lefts))
    return [Box(top=top, left=left, size=size) for top, left in chosen]


def assert_windows(data: bytes, size: int) -> None:
    pixels = whole(data)
    opened = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert np.array_equal(opened, pixels)
    for box in boxes(*pixels.shape[:2], size):
        crop = decode_crop(data, "jpg", box)
        assert np.array_equal(crop, window(pixels, box)), box
        assert (crop.dtype, crop.flags.c_contiguous) == (np.uint8, True)


@pytest.mark.parametrize(("kind", "size"), list(itertools.product(KINDS, (1, 20, 128))))
def test_a_crop_of_a_patch_is_the_window_of_its_whole_decode(kind: str, size: int) -> None:
    assert_windows(patches(kind)[1], size)


@pytest.mark.parametrize(("kind", "shape"), list(itertools.product(KINDS, [(256, 256), (251, 243), (97, 19)])))
def test_so_it_is_without_restart_markers(kind: str, shape: tuple[int, int]) -> None:
    assert_windows(encoded(picture(*shape), kind), min(17, *shape))


@pytest.mark.parametrize(("kind", "interval"), list(itertools.product(KINDS, (1, 2, 3, 4, 7, 32))))
@pytest.mark.parametrize("shape", [(128, 128), (125, 115)])
def test_so_it_is_with_markers_elsewhere(kind: str, interval: int, shape: tuple[int, int]) -> None:
    """By OpenCV: some intervals divide a row of MCUs and some don't, some are longer than it."""
    assert_windows(encoded(picture(*shape), kind, rst_interval=interval), 40)


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_for_a_progressive_jpeg(kind: str) -> None:
    assert_windows(encoded(picture(121, 160), kind, progressive=1), 33)


def test_orientation_and_other_metadata_change_nothing() -> None:
    for plain in (patches("4:2:0")[0], encoded(picture(64, 200))):
        dressed = oriented(plain[:2] + segment(0xFE, b"\xff\xda\xff\xd9") + plain[2:], 6)
        box = Box(top=11, left=21, size=40)
        assert np.array_equal(decode_crop(dressed, "jpg", box), decode_crop(plain, "jpg", box))


def test_a_grey_patch_has_three_equal_channels() -> None:
    crop = decode_crop(patches("grey")[0], "jpg", Box(top=3, left=5, size=100))
    assert crop.shape == (100, 100, 3)
    assert np.array_equal(crop, crop[:, :, :1].repeat(3, axis=2))


def test_bytes_behind_the_end_of_a_jpeg_do_not_matter() -> None:
    for data in (patches("4:2:0")[0], encoded(picture(64, 200))):
        box = Box(top=10, left=10, size=30)
        assert np.array_equal(decode_crop(data + b"x\xff\xd0" * 9, "jpg", box), decode_crop(data, "jpg", box))


def test_no_segment_is_decoded_that_the_crop_does_not_touch() -> None:
    """What the others hold does not show: here all ones."""
    data = patches("4:2:0")[0]
    scan = data.index(b"\xff\xda") + 14
    segments = data[scan:-2].replace(b"\xff\0", b"\0\0")
    starts = [0, *(i + 2 for i in range(len(segments)) if segments[i] == 0xFF)]
    assert len(starts) == 16 * 4
    needed = {4 * row + column for row in range(3, 12) for column in (2, 3)}  # right half, rows 48 to 191
    damaged = bytearray(data)
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(segments) + 2], strict=True)):
        if i not in needed:
            damaged[scan + start : scan + end - 2] = b"\xfe" * (end - 2 - start)
    box = Box(top=49, left=129, size=127)
    assert np.array_equal(decode_crop(bytes(damaged), "jpg", box), window(whole(data), box))


@pytest.mark.parametrize("factors", [((2, 4), (1, 1), (1, 1)), ((2, 2), (2, 2), (1, 1)), ((1, 1), (2, 2), (1, 1))])
def test_so_it_is_with_sampling_that_is_rare(factors: tuple[tuple[int, int], ...]) -> None:
    rng = np.random.default_rng(1)
    table = np.full((8, 8), 9, np.uint16)
    planes = [
        Plane(blocks=rng.integers(-9, 9, (8 * v, 8 * h, 8, 8), np.int16), table=table, factors=(v, h))
        for v, h in factors
    ]
    assert_windows(entropy.encode(planes, 4), 40)


def test_a_crop_into_pixels_that_are_there() -> None:
    data, box = patches("4:2:0")[0], Box(top=3, left=5, size=100)
    pixels = np.full((2, 100, 100, 3), 7, np.uint8)
    decode_crop_into(pixels[1], data, "jpg", box)
    assert np.array_equal(pixels[1], decode_crop(data, "jpg", box))
    with pytest.raises(DecodeError):
        decode_crop_into(pixels[0], data[:-9], "jpg", box)
    assert (pixels[0] == 7).all()


def test_a_crop_stays_as_it_is_when_the_next_is_decoded() -> None:
    data = patches("4:2:0")[0]
    first = decode_crop(data, "jpg", Box(top=0, left=0, size=64))
    kept = first.copy()
    decode_crop(data, "jpg", Box(top=90, left=70, size=64))
    assert np.array_equal(first, kept)


def test_decoding_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """libjpeg complains of data that it did not need."""
    for data in (patches("4:2:0")[0], encoded(picture(256, 256)), encoded(picture(256, 256), rst_interval=5)):
        for top in (0, 60, 156):
            decode_crop(data, "jpg", Box(top=top, left=30, size=100))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "grey"])
def test_a_patch_cut_short_anywhere_is_refused(kind: str) -> None:
    data = patches(kind)[0]
    last = max(data.rindex(bytes([0xFF, 0xD0 + i])) for i in range(8))
    for end in [*range(0, 700, 9), *range(700, len(data), 997), last, len(data) - 3, len(data) - 2, len(data) - 1]:
        for short in [data[:end]] + [data[:end] + b"\xff\xd9"] * (end <= last):
            with pytest.raises(DecodeError):
                decode_crop(short, "jpg", Box(top=0, left=0, size=128))


@pytest.mark.parametrize("top", [60, 156])
def test_without_markers_a_jpeg_that_ends_above_the_crop_s_last_row_is_refused(top: int) -> None:
    data = encoded(picture(256, 256))
    box = Box(top=top, left=30, size=100)
    expected = window(whole(data), box)
    for end in range(700, len(data) - 2, 499):
        with pytest.raises(DecodeError):
            decode_crop(data[:end], "jpg", box)
        try:
            crop = decode_crop(data[:end] + b"\xff\xd9", "jpg", box)
        except DecodeError:
            continue
        assert np.array_equal(crop, expected), end
        assert end > len(data) * (top + 80) // 256


def altered(data: bytes, marker: int, at: int, value: bytes) -> bytes:
    """With other bytes `at` bytes after the first such marker."""
    place = data.index(bytes([0xFF, marker])) + at
    return data[:place] + value + data[place + len(value) :]


def lies() -> list[tuple[str, bytes, str]]:
    data, plain = patches("4:2:0")[0], encoded(picture(256, 256))
    silent = entropy.without_rows(data)
    frame = data[data.index(b"\xff\xc0") : data.index(b"\xff\xc4")]
    return [
        ("empty", b"", "no start marker"),
        ("text", b"<!doctype html>" * 99, "no start marker"),
        ("png as jpg", encoded_png(picture(64, 64)), "no start marker"),
        ("start alone", b"\xff\xd8", "ends before the picture begins"),
        ("zeros", b"\xff\xd8" + bytes(999), "no segment at byte 2"),
        ("segment of no length", altered(data, 0xE0, 2, b"\0\1"), "no segment at byte 2"),
        ("long segment", altered(data, 0xE0, 2, b"\xff\xff"), "ends in the segment"),
        ("no frame", data.replace(frame, b""), "no frame header"),
        ("two frames", data.replace(frame, frame * 2), "two frame headers"),
        ("bomb", altered(data, 0xC0, 5, b"\xff\xdc\xff\xdc"), "65500x65500 pixels"),
        ("bomb without markers", altered(plain, 0xC0, 5, b"\x10\x01"), "256x4097 pixels"),
        ("no height", altered(plain, 0xC0, 5, b"\0\0"), "256x0 pixels"),
        ("short frame", data[:2] + segment(0xC0, b"") + segment(0xDA, b""), "a frame header of 2 bytes"),
        ("empty scan header", data[: data.index(b"\xff\xda")] + segment(0xDA, b""), "no end marker"),
        ("twelve bits", altered(data, 0xC0, 4, b"\x0c"), "12 bits"),
        ("four components", altered(data, 0xC0, 9, b"\4"), "4 components"),
        ("no factor", altered(data, 0xC0, 11, b"\0"), "no marker d7 where restart segment 63 of 256 ends"),
        ("large factor", altered(data, 0xC0, 11, b"\x52"), "sampling factors 5x2"),
        ("wider", altered(data, 0xC0, 5, struct.pack(">HH", 256, 512)), "no marker"),
        ("narrower", altered(data, 0xC0, 5, struct.pack(">HH", 256, 128)), "does not have Box"),
        ("higher", altered(data, 0xC0, 5, struct.pack(">HH", 272, 256)), "no marker d7"),
        ("lower", altered(data, 0xC0, 5, struct.pack(">HH", 240, 256)), "no marker d9"),
        ("another interval", altered(data, 0xDD, 4, b"\0\2"), "no marker d7 where restart segment 63 of 128 ends"),
        ("markers out of order", altered(silent, 0xD3, 1, b"\xd4"), "no marker d3 where restart segment 3 of 64 ends"),
        ("a marker less", altered(silent, 0xD3, 0, b"\0\0"), "no marker d3"),
        ("no tables", data.replace(data[data.index(b"\xff\xdb") : data.index(b"\xff\xc0")], b""), "can't be decoded"),
        ("many scans", altered(plain, 0xC0, 1, b"\xc2")[:-2] + b"\xff\xda" * 99 + b"\xff\xd9", "more than 32 scans"),
        ("arithmetic", altered(plain, 0xC0, 1, b"\xcb"), "can't be decoded"),
    ]


def test_a_jpeg_that_lies_is_refused_by_name() -> None:
    for name, data, words in lies():
        with pytest.raises(DecodeError) as refusal:
            decode_crop(data, "jpg", Box(top=60, left=60, size=128))
        assert words in str(refusal.value), name


def in_file(folder: Path, data: bytes, box: Box) -> np.ndarray | None:
    """What is read of it in the middle of a file, None where nothing comes of that."""
    path, pixels = folder / "file", np.zeros((box.size, box.size, 3), np.uint8)
    path.write_bytes(b"before" + data + b"behind")
    file = os.open(path, os.O_RDONLY)
    try:
        return pixels if decode_part_into(pixels, file, len("before"), len(data), box) else None
    finally:
        os.close(file)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_is_the_same_where_no_more_is_read_than_its_rows(kind: str, tmp_path: Path) -> None:
    data = patches(kind)[0]
    for box in boxes(256, 256, 100)[::7]:
        assert np.array_equal(in_file(tmp_path, data, box), window(whole(data), box)), box


def test_no_row_is_read_that_the_crop_does_not_touch(tmp_path: Path) -> None:
    data, box = patches("4:2:0")[0], Box(top=100, left=30, size=50)
    pixels, scan = window(whole(data), box), data.index(b"\xff\xda") + 14
    ends = segments.ends(data, scan, 64)
    for row in range(16):
        damaged = data[: ends[4 * row] + 2] + bytes(ends[4 * row + 4] - ends[4 * row]) + data[ends[4 * row + 4] + 2 :]
        crop = in_file(tmp_path, damaged, box)
        assert (crop is None) if 5 <= row < 10 else np.array_equal(crop, pixels), row


def test_without_lengths_of_rows_a_file_is_left_to_others(tmp_path: Path) -> None:
    box = Box(top=100, left=30, size=50)
    for data in (
        entropy.without_rows(patches("4:2:0")[0]),
        encoded(picture(256, 256)),
        b"",
        encoded_png(picture(64, 64)),
    ):
        assert in_file(tmp_path, data, box) is None


def test_lengths_of_rows_are_believed_as_far_as_the_markers_bear_them_out(tmp_path: Path) -> None:
    """Whatever they say, a crop is the window of the whole decode."""
    data, rng = patches("4:2:0")[0], random.Random(5)
    pixels, at = whole(data), data.index(entropy.ROWS) + len(entropy.ROWS)
    right, read = list(struct.unpack(">16H", data[at : at + 32])), 0
    for _ in range(400):
        lengths, (one, other) = list(right), rng.sample(range(16), 2)
        moved = rng.choice([1, 2, 3, 8, lengths[one] // 4, lengths[one], rng.randrange(1 << 16)])
        lengths[one] = max(lengths[one] - moved, 0)
        lengths[other] = min(lengths[other] + moved * rng.choice([0, 1, 1]), 0xFFFF)
        lied = data[:at] + struct.pack(">16H", *lengths) + data[at + 32 :]
        box = Box(top=rng.randrange(193), left=rng.randrange(193), size=64)
        assert np.array_equal(decode_crop(lied, "jpg", box), window(pixels, box))
        crop = in_file(tmp_path, lied, box)
        assert crop is None or np.array_equal(crop, window(pixels, box))
        read += crop is not None
    assert 0 < read < 300  # rows that both lie above the crop, or below it


@pytest.mark.parametrize(
    "box",
    [
        Box(top=-1, left=0, size=128),
        Box(top=0, left=-1, size=128),
        Box(top=129, left=0, size=128),
        Box(top=0, left=129, size=128),
        Box(top=0, left=0, size=257),
        Box(top=0, left=0, size=0),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_box_beyond_the_patch_is_refused(suffix: str, box: Box) -> None:
    data = patches("4:2:0")[0] if suffix == "jpg" else encoded_png(picture(256, 256))
    with pytest.raises(DecodeError, match="256x256 pixels does not have Box"):
        decode_crop(data, suffix, box)


def test_other_members_of_a_shard_hold_no_pixels() -> None:
    with pytest.raises(DecodeError, match='"json"'):
        decode_crop(b"{}", "json", Box(top=0, left=0, size=8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_crop_of_a_png_is_the_window(mode: str) -> None:
    pixels = np.asarray(Image.fromarray(picture(200, 256)).convert(mode))
    data = encoded_png(pixels)
    for box in boxes(200, 256, 100):
        crop = decode_crop(data, "png", box)
        assert np.array_equal(crop, window(whole(data), box))
        assert (crop.shape, crop.dtype, crop.flags.c_contiguous) == ((100, 100, 3), np.uint8, True)


def with_header(data: bytes, width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_a_png_that_lies_is_refused_by_name() -> None:
    data, box = encoded_png(picture(256, 256)), Box(top=60, left=60, size=128)
    for lie, words in [
        (b"", "no header"),
        (data[:20], "no header"),
        (patches("4:2:0")[0], "no header"),
        (with_header(data, 60000, 60000), "60000x60000 pixels"),
        (with_header(data, 256, 4097), "256x4097 pixels"),
        (with_header(data, 256, 512), "can't be decoded"),
        (with_header(data, 512, 256), "can't be decoded"),
        (data[:-12], "no end chunk"),
        (data[: len(data) // 2], "ends in a chunk"),
        (data[:33] + b"\xff" + data[34:], "ends in a chunk of 42"),
        (data[:3000] + b"x" + data[3001:], "can't be decoded"),
    ]:
        with pytest.raises(DecodeError, match=words):
            decode_crop(lie, "png", box)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, dropped, repeated or cut off, half of the places in the headers."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.randrange(min(len(changed), 700) if rng.random() < 0.5 else len(changed))
        what = rng.random()
        if what < 0.7:
            changed[at] = rng.choice([rng.randrange(256), 0, 255, changed[at] ^ 1 << rng.randrange(8)])
        elif what < 0.8:
            del changed[at + 1 : at + rng.randrange(2, 9)]
        elif what < 0.9:
            changed[at:at] = changed[at // 2 : at // 2 + rng.randrange(1, 200)]
        else:
            del changed[at + 1 :]
    return bytes(changed)


PIXELS = ((128, 128, 3), np.dtype(np.uint8))


def ends_of(sources: list[tuple[bytes, str]], count: int) -> Counter[object]:
    """What so many damaged files end in, and how often: `PIXELS`, a crop of another kind, or DecodeError."""
    rng = random.Random(7)
    found: Counter[object] = Counter()
    pixels = np.zeros((128, 128, 3), np.uint8)
    for _ in range(count):
        data, suffix = rng.choice(sources)
        box = Box(top=rng.randrange(129), left=rng.randrange(129), size=128)
        damaged = mutated(data, rng)
        with tempfile.TemporaryFile() as file:
            file.write(damaged)
            file.flush()
            decode_part_into(pixels, file.fileno(), 0, len(damaged), box)
        try:
            crop = decode_crop(damaged, suffix, box)
        except DecodeError:
            found[DecodeError] += 1
        else:
            found[crop.shape, crop.dtype] += 1
    return found


def test_damaged_files_give_pixels_or_a_refusal() -> None:
    sources = [(patches(kind)[0], "jpg") for kind in KINDS]
    sources += [(encoded(picture(256, 256), kind, progressive=p), "jpg") for kind in ("4:2:0", "grey") for p in (0, 1)]
    sources += [(encoded_png(picture(256, 256)), "png"), (encode(picture(256, 256), 4), "png")]
    ends = ends_of(sources, 2000)
    assert set(ends) == {PIXELS, DecodeError}
    assert ends[DecodeError] > 500  # enough of the damage was damage


@pytest.mark.slow
def test_real_patches(photos: Path) -> None:
    rng = random.Random(3)
    sources = []
    for path in sorted(photos.glob("*.jpg"))[::8]:
        body = path.read_bytes()
        for patch in cut(body, upright(body), format="jpeg").patches[::9]:
            pixels, suffix = whole(patch.data), SUFFIX[patch.codec]
            for _ in range(10):
                box = Box(top=rng.randrange(385), left=rng.randrange(385), size=128)
                assert np.array_equal(decode_crop(patch.data, suffix, box), window(pixels, box))
            sources.append((patch.data, suffix))
    assert len(sources) > 10
    ends = ends_of(sources, 1000)
    assert set(ends) == {PIXELS, DecodeError}
    assert ends[DecodeError] > 250
