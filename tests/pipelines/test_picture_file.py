"""What is written is read back: samples, tags and profile, by us and by others."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from pipelines.picture_file import PictureFile, Unreadable, joined, opened
from pipelines.picture_write import ENCODERS, jpeg, png, tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EIGHT, SIXTEEN = np.dtype(np.uint8), np.dtype(np.uint16)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x013B] = 6, "Ann Artist"
    tags[0x8769] = {0x9003: "2020:01:01 00:00:00", 0x829A: 0.01}
    tags[0x8825] = {1: "N", 2: (1.0, 2.0, 3.5)}
    return tags.tobytes().removeprefix(b"Exif\0\0")


def drawn(kind: np.dtype, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (5, 7, channels)).astype(kind)


def samples(picture: PictureFile) -> np.ndarray:
    return joined(picture, picture.pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [EIGHT, SIXTEEN], ids=["8", "16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_png_and_tiff_hold_everything(suffix: str, kind: np.dtype, channels: int) -> None:
    given = drawn(kind, channels)
    found = opened(ENCODERS[suffix](given, exif(), PROFILE))
    wanted = given[..., [0, 0, 0, 1]] if kind == SIXTEEN and channels == 2 and suffix == ".tif" else given
    if suffix == ".tif":
        wanted = np.rot90(wanted, -1)  # it comes upright from its decoders
    elif kind == SIXTEEN and channels == 2:
        wanted = wanted[..., [0, 0, 0, 1]]
    assert np.array_equal(samples(found), wanted)
    assert found.profile == PROFILE
    tags = Image.Exif()
    tags.load(b"Exif\0\0" + found.exif)
    assert tags.get(0x0112) == (None if suffix == ".tif" else 6)
    assert tags[0x013B] == "Ann Artist"
    assert tags.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
    assert tags.get_ifd(0x8825)[2] == (1.0, 2.0, 3.5)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [EIGHT, SIXTEEN], ids=["8", "16"])
def test_others_read_our_tiff(kind: np.dtype, channels: int) -> None:
    given = drawn(kind, channels)
    page = tifffile.TiffFile(io.BytesIO(tiff(given, exif(), PROFILE))).pages[0]
    assert np.array_equal(page.asarray().reshape(given.shape), given)
    assert page.tags["Orientation"].value == 6
    assert page.tags["ExifTag"].value["DateTimeOriginal"] == "2020:01:01 00:00:00"


def test_cmyk_becomes_upright_srgb_without_the_tag() -> None:
    sink = io.BytesIO()
    tags = Image.Exif()
    tags[0x0112], tags[0x013B] = 6, "Ann Artist"
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(sink, "JPEG", exif=tags.tobytes())
    found = opened(sink.getvalue())
    assert found.pixels.shape == (7, 5, 3)
    assert (np.abs(found.pixels.astype(int) - (255, 0, 0)) < 6).all()
    kept = Image.Exif()
    kept.load(b"Exif\0\0" + found.exif)
    assert dict(kept) == {0x013B: "Ann Artist"}


def test_jpeg_has_no_alpha() -> None:
    with pytest.raises(ValueError, match="--format png"):
        jpeg(drawn(EIGHT, 4), b"", b"")


def test_what_is_cut_or_too_large_is_refused() -> None:
    whole = {".png": png, ".tif": tiff}
    for name, write in whole.items():
        body = write(drawn(EIGHT, 3), b"", b"")
        with pytest.raises(Unreadable):
            opened(body[: len(body) * 2 // 3])
        with pytest.raises(Unreadable, match="35 pixels, at most 34 allowed"):
            opened(body, max_pixels=34)
        assert opened(body, max_pixels=35).pixels.shape == (5, 7, 3), name


@pytest.mark.parametrize(("mode", "said"), [("F", "32 bits"), ("CMYK", "save it as RGB")])
def test_other_kinds_of_tiff_are_said(mode: str, said: str) -> None:
    sink = io.BytesIO()
    Image.new(mode, (7, 5)).save(sink, "TIFF")
    with pytest.raises(Unreadable, match=said):
        opened(sink.getvalue())


def test_pages_are_said() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (7, 5)).save(sink, "TIFF", save_all=True, append_images=[Image.new("RGB", (7, 5))])
    with pytest.raises(Unreadable, match="several pages"):
        opened(sink.getvalue())


def test_no_cut_or_changed_byte_of_a_tiff_does_more_than_be_refused() -> None:
    body = tiff(drawn(SIXTEEN, 3), exif(), PROFILE)
    random = np.random.default_rng(0)
    endings = Counter[str]()
    for _ in range(300):
        changed = bytearray(body)
        changed[random.integers(min(len(body), 600))] = random.integers(256)
        try:
            endings["opened"] += opened(bytes(changed)).pixels.ndim == 3
        except Unreadable:
            endings["refused"] += 1
    assert endings.total() == 300
    assert min(endings["opened"], endings["refused"]) > 20
