"""A patch of a JPEG is its coefficients, whatever its kind and turn; everything else, and every doubt, is PNG."""

from __future__ import annotations

import io
import itertools
import random
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import jpeglib
import numpy as np
import pytest
import scipy.fft
from PIL import Image

from shards import strips
from shards.codec import JPEG_DCT, PNG, Cut, Patch, cut
from tests.shards.pictures import KINDS, encoded, oriented, picture, segment, upright


def cut_jpeg(body: bytes, size: int = 512, max_flat: float = 1.0) -> Cut:
    return cut(body, upright(body), format="jpeg", size=size, max_flat=max_flat)


def decoded(patch: Patch) -> np.ndarray:
    with Image.open(io.BytesIO(patch.data)) as image:
        return np.asarray(image.convert("RGB"))


def crop(pixels: np.ndarray, patch: Patch) -> np.ndarray:
    return pixels[patch.top : patch.top + patch.size, patch.left : patch.left + patch.size]


def read_dct(body: bytes, folder: Path) -> jpeglib.DCTJPEG:
    (folder / "x.jpg").write_bytes(body)
    with jpeglib.version("turbo210"):
        jpeg = jpeglib.read_dct(str(folder / "x.jpg"))
        jpeg.load()
    return jpeg


def planes(body: bytes, folder: Path) -> list[np.ndarray]:
    """Each component's samples before rounding and upsampling: the inverse DCT of the dequantised blocks."""
    jpeg = read_dct(body, folder)
    found = []
    for index, blocks in enumerate(b for b in (jpeg.Y, jpeg.Cb, jpeg.Cr) if b is not None):
        values = scipy.fft.idctn(blocks * jpeg.get_component_qt(index).astype(float), axes=(2, 3), norm="ortho")
        found.append(values.transpose(0, 2, 1, 3).reshape(blocks.shape[0] * 8, blocks.shape[1] * 8))
    return found


def turned(plane: np.ndarray, orientation: int) -> np.ndarray:
    """By the orientation's own words: where the stored first row and first column are in the upright picture."""
    return {
        1: plane,
        2: plane[:, ::-1],
        3: plane[::-1, ::-1],
        4: plane[::-1],
        5: plane.T,
        6: np.rot90(plane, -1),
        7: plane[::-1, ::-1].T,
        8: np.rot90(plane),
    }[orientation]


def test_every_coefficient_of_a_patch_is_the_source_s(tmp_path: Path) -> None:
    body = encoded(picture(300, 420))
    source = read_dct(body, tmp_path)
    for patch in cut_jpeg(body, size=128).patches:
        copy = read_dct(patch.data, tmp_path)
        row, column = patch.top // 8, patch.left // 8
        assert np.array_equal(copy.Y, source.Y[row : row + 16, column : column + 16])
        for mine, theirs in ((copy.Cb, source.Cb), (copy.Cr, source.Cr)):
            assert np.array_equal(mine, theirs[row // 2 : row // 2 + 8, column // 2 : column // 2 + 8])
        for index in range(3):
            assert np.array_equal(copy.get_component_qt(index), source.get_component_qt(index))


@pytest.mark.parametrize(("kind", "progressive"), list(itertools.product(KINDS, (0, 1))))
@pytest.mark.parametrize("shape", [(256, 384), (301, 419)])
def test_a_patch_decodes_to_the_crop_save_for_one_pixel_around(
    kind: str, progressive: int, shape: tuple[int, int]
) -> None:
    body = encoded(picture(*shape), kind, progressive=progressive)
    pixels, found = upright(body), cut_jpeg(body, size=128).patches
    assert {patch.codec for patch in found} == {JPEG_DCT}
    border = 1 if kind in ("4:2:2", "4:2:0", "4:4:0") else 0
    for patch in found:
        inner = slice(border, 128 - border)
        assert np.array_equal(decoded(patch)[inner, inner], crop(pixels, patch)[inner, inner])


@pytest.mark.parametrize(("kind", "orientation"), list(itertools.product(KINDS, range(1, 9))))
@pytest.mark.parametrize("shape", [(256, 384), (301, 419)])
def test_a_turned_patch_holds_the_samples_of_the_turned_picture(
    kind: str, orientation: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    body = oriented(encoded(picture(*shape), kind), orientation)
    pixels, found = upright(body), cut_jpeg(body, size=128).patches
    assert len(found) == (shape[0] // 128) * (shape[1] // 128)
    stored = [turned(plane, orientation) for plane in planes(body, tmp_path)]
    for patch in found:
        assert patch.codec == JPEG_DCT
        assert np.abs(decoded(patch)[1:-1, 1:-1].astype(int) - crop(pixels, patch)[1:-1, 1:-1]).max() <= 6
        for mine, theirs in zip(planes(patch.data, tmp_path), stored, strict=True):
            assert np.allclose(mine, window(theirs, patch, orientation, pixels, mine.shape), atol=1e-9)


def window(plane: np.ndarray, patch: Patch, orientation: int, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The part of a turned plane under the patch; on a mirrored axis the plane's padding comes first."""
    mirrored = (orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7))
    parts = []
    for axis, place in enumerate((patch.top, patch.left)):
        scale = 128 // shape[axis]  # pixels a sample
        padding = plane.shape[axis] * scale - pixels.shape[axis] if mirrored[axis] else 0
        first = (place + padding) // scale
        parts.append(slice(first, first + shape[axis]))
    return plane[tuple(parts)]


@pytest.mark.parametrize("flag", ["+ARITH_CODE", "+PROGRESSIVE_MODE"])
def test_arithmetic_coding_is_read(flag: str, tmp_path: Path) -> None:
    jpeg = read_dct(encoded(picture(256, 256)), tmp_path)
    with jpeglib.version("turbo210"):
        jpeg.write_dct(str(tmp_path / "y.jpg"), flags=[flag])
    body = (tmp_path / "y.jpg").read_bytes()
    assert {patch.codec for patch in cut_jpeg(body, size=128).patches} == {JPEG_DCT}


def test_restart_intervals_are_read() -> None:
    body = encoded(picture(256, 256), rst_interval=3)
    assert b"\xff\xdd" in body
    assert {patch.codec for patch in cut_jpeg(body, size=128).patches} == {JPEG_DCT}


@pytest.mark.parametrize(("kind", "mcu"), [("4:2:0", 16), ("4:2:2", 16), ("4:1:1", 32), ("4:4:4", 8), ("grey", 8)])
@pytest.mark.parametrize(("size", "segment"), [(256, 64), (128, 64), (96, 32)])
def test_a_patch_has_restart_markers_that_divide_its_rows(kind: str, mcu: int, size: int, segment: int) -> None:
    for patch in cut_jpeg(encoded(picture(256, 256), kind), size=size).patches:
        restart = patch.data.index(b"\xff\xdd\0\4") + 4
        assert int.from_bytes(patch.data[restart : restart + 2], "big") * mcu == segment


def test_coefficients_beyond_baseline_send_the_picture_to_png(tmp_path: Path) -> None:
    """-1024 is one more than an AC coefficient of 8-bit samples can be; libjpeg reads it all the same."""
    frame = struct.pack(">BHHBBBB", 8, 64, 64, 1, 1, 0x11, 0)
    dc, ac = b"\x00" + bytes([1, *[0] * 15]) + b"\x00", b"\x10" + bytes([1, 1, *[0] * 14]) + b"\x0b\x00"
    blocks = int(("0" + "0" + "01111111111" + "10") * 64, 2)  # no difference, -1024 in 11 bits, end of block
    segments = [
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC0, frame),
        segment(0xC4, dc + ac),
        segment(0xDA, b"\1\1\0\0\x3f\0"),
    ]
    scan = blocks.to_bytes(15 * 64 // 8, "big").replace(b"\xff", b"\xff\0")
    body = b"\xff\xd8" + b"".join(segments) + scan + b"\xff\xd9"
    assert np.all(read_dct(body, tmp_path).Y[..., 0, 1] == -1024)
    assert {patch.codec for patch in cut_jpeg(body, size=64).patches} == {PNG}


def test_metadata_and_what_follows_the_picture_stay_behind() -> None:
    plain = encoded(picture(256, 256))
    secret = segment(0xE1, b"Exif\0\0secret" * 9) + segment(0xFE, b"secret") + segment(0xE2, b"secret") * 60
    dressed = plain[:2] + secret + plain[2:] + b"secret" + encoded(picture(64, 64, seed=1))
    patches = cut_jpeg(dressed, size=128).patches
    assert patches == cut_jpeg(plain, size=128).patches
    assert patches[0].codec == JPEG_DCT
    assert not any(b"secret" in patch.data for patch in patches)


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_cutting_twice_gives_the_same_bytes(format: str) -> None:
    body = encoded(picture(256, 300))
    assert cut(body, upright(body), format=format, size=128) == cut(body, upright(body), format=format, size=128)


@pytest.mark.parametrize("format", ["png", "webp", "avif"])
def test_everything_else_is_png_without_loss(format: str) -> None:
    pixels = picture(200, 300)
    found = cut(b"", pixels, format=format, size=64).patches
    assert len(found) == 3 * 4
    for patch in found:
        assert (patch.codec, patch.data[:4]) == (PNG, b"\x89PNG")
        assert strips.decoded(patch.data, 20, 40, 64) is not None
        assert np.array_equal(decoded(patch), crop(pixels, patch))


def test_flat_patches_are_counted_and_not_coded() -> None:
    pixels = picture(128, 256).copy()
    pixels[:, :128] = 200
    result = cut(b"", pixels, format="png", size=128)
    assert (result.flat, [patch.left for patch in result.patches]) == (1, [128])
    assert result.patches[0].flat_fraction <= 0.5


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def rgb_coded() -> bytes:
    return saved(Image.fromarray(picture(256, 256)), keep_rgb=True)


def cmyk() -> bytes:
    return saved(Image.fromarray(picture(256, 256)).convert("CMYK"))


def three_by_one() -> bytes:
    """Chroma of a third: the MCU is 24 pixels wide, of which a patch is no multiple."""
    body = bytearray(encoded(picture(264, 264), "4:4:4"))
    frame = body.index(b"\xff\xc0")
    body[frame + 11] = 0x31
    return bytes(body)


@pytest.mark.parametrize("body", [rgb_coded(), cmyk(), three_by_one()], ids=["rgb", "cmyk", "third"])
def test_jpegs_that_no_copy_stands_for_are_png(body: bytes) -> None:
    pixels, found = upright(body), cut_jpeg(body, size=128).patches
    assert len(found) == 4
    for patch in found:
        assert patch.codec == PNG
        assert np.array_equal(decoded(patch), crop(pixels, patch))


def test_a_jpeg_whose_colours_decoding_changed_is_png() -> None:
    body = encoded(picture(256, 256))
    pixels = cv2.cvtColor(upright(body), cv2.COLOR_RGB2BGR)
    found = cut(body, pixels, format="jpeg", size=128).patches
    assert {patch.codec for patch in found} == {PNG}
    assert all(np.array_equal(decoded(patch), crop(pixels, patch)) for patch in found)


def test_one_wrong_pixel_sends_the_picture_to_png() -> None:
    body = encoded(picture(256, 256))
    pixels = upright(body).copy()
    pixels[200, 200, 1] ^= 1
    found = cut(body, pixels, format="jpeg", size=128).patches
    assert {patch.codec for patch in found} == {PNG}
    assert np.array_equal(decoded(found[-1]), crop(pixels, found[-1]))


def test_a_picture_smaller_than_a_patch_gives_none() -> None:
    assert cut_jpeg(encoded(picture(120, 500)), size=128) == Cut(patches=(), flat=0)


def mutated(body: bytes, rng: random.Random) -> bytes:
    data = bytearray(body)
    end_of_headers = data.find(b"\xff\xda") + 20
    for _ in range(rng.choice([1, 2, 5, 20])):
        place = rng.randrange(2, end_of_headers if rng.random() < 0.5 else len(data))
        change = rng.random()
        if change < 0.7:
            data[place] = rng.choice([rng.randrange(256), 0, 255, 0xDA, 0xC2, 0xC4])
        elif change < 0.85:
            del data[place : place + rng.randrange(1, 30)]
        else:
            data[place:place] = data[place // 2 : place // 2 + rng.randrange(1, 200)]
        end_of_headers = min(end_of_headers, len(data))
    return bytes(data)


def survive(seed: int, count: int) -> None:
    """Run in a process of its own: every mutated file ends in patches of the pixels that came with it."""
    rng = random.Random(seed)
    pixels = picture(96, 130)
    sources = [encoded(pixels, kind, progressive=p) for kind in ("4:2:0", "4:4:4", "grey") for p in (0, 1)]
    for _ in range(count):
        found = cut(mutated(rng.choice(sources), rng), pixels, format="jpeg", size=32, max_flat=1.0).patches
        assert len(found) == 12, "an odd file loses no patch"


@pytest.mark.slow
def test_hostile_files_end_no_process_and_leave_no_file(tmp_path: Path) -> None:
    code = "from tests.shards.test_codec import survive; survive(7, 1500)"
    root = Path(__file__).resolve().parents[2]
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:].decode(errors="replace")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_real_photographs_keep_their_coefficients(photos: Path, tmp_path: Path) -> None:
    copied = total = 0
    for path in sorted(photos.glob("*.jpg"))[::6]:
        body = path.read_bytes()
        pixels, found = upright(body), cut_jpeg(body, max_flat=0.5).patches
        source = read_dct(body, tmp_path)
        for patch in found:
            assert patch.codec == JPEG_DCT, path.name
            row, column = patch.top // 8, patch.left // 8
            assert np.array_equal(read_dct(patch.data, tmp_path).Y, source.Y[row : row + 64, column : column + 64])
            assert np.array_equal(decoded(patch)[1:-1, 1:-1], crop(pixels, patch)[1:-1, 1:-1])
            copied += len(patch.data)
            total += len(cv2.imencode(".png", crop(pixels, patch))[1])
    assert total > 3 * copied > 0
