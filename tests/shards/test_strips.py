"""A strip stands by itself; what only claims to be made of strips is decoded whole or refused, never wrongly."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shards import strips
from shards.crops import DecodeError, decode_crop
from shards.patches import Box
from shards.png import encode
from tests.shards.pictures import picture, upright

START = 8 + 25 + 20 + 14  # signature, IHDR, stRP, zlib header
PIXELS = picture(200, 160)
DATA = encode(PIXELS, 4)


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload), kind) + payload + struct.pack(">I", zlib.crc32(kind + payload))


def coded(data: bytes = DATA) -> list[bytes]:
    """The deflate data of each strip."""
    found, at = [], START
    while data[at + 8 : at + 10] != b"\x03\0":
        length = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return found


def inflated(strip: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(strip)


def deflated(raw: bytes, level: int = 4) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    return deflate.compress(raw) + deflate.flush(zlib.Z_FULL_FLUSH)


def made(parts: list[bytes]) -> bytes:
    """As the writer would, marks and sums right, whatever the strips are."""
    checksum = 1
    for part in parts:
        checksum = zlib.adler32(inflated(part), checksum)
    return strips.joined(200, 160, parts, checksum)


def marked(rows: int, checksum: int, data: bytes = DATA) -> bytes:
    return data[:33] + chunk(b"stRP", struct.pack(">II", rows, checksum)) + data[53:]


def cropped(data: bytes, top: int, size: int = 40) -> np.ndarray:
    return decode_crop(data, "png", Box(top=top, left=11, size=size))


def test_a_strip_inflates_and_unfilters_by_itself() -> None:
    found = coded()
    assert len(found) == 7
    for i, strip in enumerate(found):
        rows = np.frombuffer(inflated(strip), np.uint8).reshape(-1, 1 + 3 * 160)
        assert len(rows) == (32 if i < 6 else 8)
        assert rows[0, 0] in (0, 1)


def test_rows_are_decoded_from_the_first_column_to_the_right_one() -> None:
    for top, bottom in [(0, 1), (31, 33), (32, 64), (63, 64), (64, 65), (47, 113), (199, 200), (0, 200)]:
        for right in (1, 2, 77, 159, 160):
            rows = strips.decoded(DATA, top, bottom, right)
            assert rows is not None
            assert np.array_equal(rows, PIXELS[top:bottom, :right])


def test_what_lies_outside_is_no_part() -> None:
    for top, bottom, right in [(-1, 5, 9), (5, 5, 9), (6, 5, 9), (190, 201, 9), (0, 5, 0), (0, 5, 161)]:
        assert strips.decoded(DATA, top, bottom, right) is None


@pytest.mark.parametrize("size", [1, 17, 32, 160])
def test_a_crop_is_the_window(size: int, capfd: pytest.CaptureFixture[str]) -> None:
    for top in {0, 1, 31, 32, 33, 199 - size, 200 - size}:
        for left in {0, (160 - size) // 3, 160 - size}:
            crop = decode_crop(DATA, "png", Box(top=top, left=left, size=size))
            assert np.array_equal(crop, PIXELS[top : top + size, left : left + size])
            assert (crop.dtype, crop.flags.c_contiguous) == (np.uint8, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rows", [1, 5, 16, 64, 200, 999])
def test_strips_may_have_any_number_of_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "ROWS", rows)
    data = encode(PIXELS, 4)
    monkeypatch.undo()
    assert strips.decoded(data, 60, 100, 51) is not None
    assert np.array_equal(cropped(data, 60), PIXELS[60:100, 11:51])


def test_pictures_lower_than_a_strip() -> None:
    for height in (1, 31, 32, 33):
        data = encode(PIXELS[:height], 4)
        assert strips.decoded(data, 0, height, 160) is not None
        assert np.array_equal(
            decode_crop(data, "png", Box(top=height - 1, left=3, size=1)), PIXELS[height - 1, 3:4][None]
        )


def test_a_stranger_s_png_has_no_parts() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    assert strips.decoded(buffer.getvalue(), 0, 10, 10) is None
    assert strips.decoded(cv2.imencode(".png", PIXELS)[1].tobytes(), 0, 10, 10) is None


def test_no_strip_is_read_that_the_crop_does_not_touch() -> None:
    ends = [START]
    for strip in coded():
        ends.append(ends[-1] + 12 + len(strip))
    damaged = bytearray(DATA)
    for i in {*range(7)} - {2, 3}:
        damaged[ends[i] + 8 : ends[i + 1] - 4] = bytes(ends[i + 1] - ends[i] - 12)
    assert np.array_equal(cropped(bytes(damaged), 76), PIXELS[76:116, 11:51])
    for top in (63, 89):
        with pytest.raises(DecodeError):
            cropped(bytes(damaged), top)


def honest() -> dict[str, bytes]:
    """Valid PNGs of the same pixels whose mark is wrong or which are laid out otherwise."""
    parts, sums = coded(), struct.unpack_from(">I", DATA, 45)[0]
    raw = b"".join(map(inflated, parts))
    adler = struct.pack(">I", zlib.adler32(raw))
    behind = chunk(b"IDAT", b"\x03\0" + adler) + chunk(b"IEND", b"")
    start = DATA[:START]
    whole = zlib.compress(raw)
    pieces = [whole[i : i + len(whole) // 6] for i in range(0, len(whole), len(whole) // 6)]
    last = len(DATA) - len(behind)
    one = zlib.compressobj(4, zlib.DEFLATED, -15)
    through = [
        one.compress(raw[at : at + 32 * 481]) + one.flush(zlib.Z_SYNC_FLUSH) for at in range(0, len(raw), 32 * 481)
    ]
    return {
        "no mark": DATA[:33] + DATA[53:],
        "no rows": marked(0, sums),
        "fewer rows": marked(31, sums),
        "more rows": marked(33, sums),
        "all rows": marked(0xFFFFFFFF, sums),
        "another sum": marked(32, sums ^ 1),
        "mark of another length": DATA[:33] + chunk(b"stRP", DATA[41:49] + b"\0") + DATA[53:],
        "text before the mark": DATA[:33] + chunk(b"tEXt", b"a\0b") + DATA[33:],
        "text behind the mark": DATA[:53] + chunk(b"tEXt", b"a\0b") + DATA[53:],
        "text before the end": DATA[:-12] + chunk(b"tEXt", b"a\0b") + DATA[-12:],
        "an empty chunk more": start + chunk(b"IDAT", b"") + DATA[START:],
        "two strips in a chunk": start
        + chunk(b"IDAT", parts[0] + parts[1])
        + DATA[START + 24 + sum(map(len, parts[:2])) :],
        "compressed anew": start[:-14] + b"".join(chunk(b"IDAT", piece) for piece in pieces) + chunk(b"IEND", b""),
        "strips that look back, an old mark": start + b"".join(chunk(b"IDAT", part) for part in through) + DATA[last:],
        "bytes behind the end": DATA + b"x" * 99,
    }


@pytest.mark.parametrize("name", list(honest()))
def test_other_layouts_of_the_same_pixels_are_read_right(name: str) -> None:
    data = honest()[name]
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), PIXELS), "the case itself"
    assert strips.decoded(data, 60, 100, 51) is None or name == "bytes behind the end"
    for top in (0, 60, 160):
        assert np.array_equal(cropped(data, top), PIXELS[top : top + 40, 11:51])


def refiltered(kind: int, y: int) -> bytes:
    """Row y of strip 2, which is row 64 + y of the picture, filtered so: all marks and sums are right."""
    parts, row = coded(), PIXELS[64 + y].astype(int)
    left, above = np.zeros((160, 3), int), PIXELS[63 + y].astype(int)
    left[1:] = row[:-1]
    guess = {2: above, 3: (left + above) // 2}[kind]
    raw = bytearray(inflated(parts[2]))
    raw[481 * y : 481 * (y + 1)] = bytes([kind]) + ((row - guess) & 255).astype(np.uint8).tobytes()
    return made([*parts[:2], deflated(bytes(raw)), *parts[3:]])


@pytest.mark.parametrize(("kind", "y"), [(2, 0), (3, 0), (3, 5)])
def test_filters_that_strips_do_not_have_are_left_to_stock_readers(kind: int, y: int) -> None:
    """Up and Average in the first row, where they look at another strip, and Average anywhere."""
    data = refiltered(kind, y)
    assert strips.decoded(data, 64 + y, 65 + y, 9) is None
    for top in (40, 63, 64, 70):
        assert np.array_equal(cropped(data, top), PIXELS[top : top + 40, 11:51])


def test_strips_of_other_lengths_than_the_mark_says_are_left_to_stock_readers() -> None:
    """As a whole the picture is right: what is missing in strip 2 begins strip 3, or the other way round."""
    parts = coded()
    both = inflated(parts[2]) + inflated(parts[3])
    for cut in (1, 480, 31 * 481, 32 * 481 - 1, 33 * 481):
        data = made([*parts[:2], deflated(both[:cut]), deflated(both[cut:]), *parts[4:]])
        for top, size in ((64, 64), (64, 32), (70, 20), (20, 70), (97, 3)):
            assert np.array_equal(cropped(data, top, size), PIXELS[top : top + size, 11 : 11 + size])


def lies() -> dict[str, bytes]:
    parts = coded()
    return {
        "a strip of nothing": made([*parts[:2], b"", *parts[3:]]),
        "no deflate data": strips.joined(200, 160, [*parts[:2], b"\xff" * 999, *parts[3:]], 0),
        "looks back": strips.joined(200, 160, [*parts[:2], b"\x63\x60\x80\x03\xff" * 9, *parts[3:]], 0),
        "a last block early": made([*parts[:2], zlib.compress(inflated(parts[2])[:999])[2:-4], *parts[3:]]),
        "an unknown filter": made([*parts[:2], deflated(b"\x05" * 32 * 481), *parts[3:]]),
        "one strip less": made(parts[:-1]),
        "wider": with_header(struct.pack(">II", 161, 200)),
        "narrower": with_header(struct.pack(">II", 159, 200)),
        "higher": with_header(struct.pack(">II", 160, 225)),
        "deep": with_header(struct.pack(">IIB", 160, 200, 16)),
        "grey": with_header(struct.pack(">IIBB", 160, 200, 8, 0)),
    }


def with_header(start: bytes) -> bytes:
    return DATA[:8] + chunk(b"IHDR", start + DATA[16 + len(start) : 29]) + DATA[33:]


@pytest.mark.parametrize("name", list(lies()))
def test_what_no_reader_can_decode_is_refused(name: str) -> None:
    with pytest.raises(DecodeError):
        cropped(lies()[name], 70)


def test_more_data_than_rows_is_no_matter_to_stock_readers() -> None:
    for data in (made([*coded(), coded()[0]]), with_header(struct.pack(">II", 160, 192))):
        assert strips.decoded(data, 150, 190, 51) is None
        assert np.array_equal(cropped(data, 150), PIXELS[150:190, 11:51])


def test_a_bomb_is_inflated_no_further_than_a_strip() -> None:
    parts = coded()
    data = strips.joined(200, 160, [*parts[:2], deflated(bytes(300_000_000), 9), *parts[3:]], 0)
    start = time.process_time()
    for _ in range(20):
        assert strips.decoded(data, 64, 96, 160) is None
    assert time.process_time() - start < 0.5, "300 MB take more than that once"
    assert np.array_equal(cropped(data, 20), PIXELS[20:60, 11:51])


def test_cut_short_anywhere_it_is_refused() -> None:
    for end in [*range(0, START + 20), *range(START + 20, len(DATA), 1009), *range(len(DATA) - 30, len(DATA))]:
        with pytest.raises(DecodeError):
            cropped(DATA[:end], 60)


def test_one_wrong_byte_never_gives_a_wrong_pixel() -> None:
    rng = random.Random(5)
    refused = 0
    places = [*range(START + 30), *(rng.randrange(len(DATA)) for _ in range(300)), *range(len(DATA) - 40, len(DATA))]
    for at in places:
        data = DATA[:at] + bytes([DATA[at] ^ 1 << rng.randrange(8)]) + DATA[at + 1 :]
        top = rng.randrange(161)
        try:
            crop = cropped(data, top)
        except DecodeError:
            refused += 1
        else:
            assert np.array_equal(crop, PIXELS[top : top + 40, 11:51]), at
    assert len(places) // 4 < refused < len(places)


@pytest.mark.slow
def test_crops_of_real_photographs_are_windows(photos: Path) -> None:
    rng = random.Random(3)
    for path in [*photos.glob("*.png"), *photos.glob("*.webp"), *sorted(photos.glob("*.jpg"))[::9]]:
        pixels = np.ascontiguousarray(upright(path.read_bytes())[100:612, 200:712])
        data = encode(pixels, 4)
        for _ in range(20):
            top, left = rng.randrange(385), rng.randrange(385)
            assert strips.decoded(data, top, top + 128, left + 128) is not None
            crop = decode_crop(data, "png", Box(top=top, left=left, size=128))
            assert np.array_equal(crop, pixels[top : top + 128, left : left + 128])
