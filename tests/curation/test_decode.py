"""Strangers' bytes: what becomes a picture, with which pixels, and what is refused, and why."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from curation.decode import decode, header
from curation.records import Header, Picture, Reason, Refusal, Stage

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared photographs are not beside the checkout")

R = Reason
#: What each file of shared/data/bad becomes: a reason, or (width, height).
BAD: dict[str, Reason | tuple[int, int]] = {
    "alpha__full-transparent.png": (300, 300),
    "anim__animated-loop-3.gif": R.ANIMATED,
    "anim__blend_op_over_near_transparent.png": R.ANIMATED,
    "anim__dispose_none_load_end.gif": R.ANIMATED,
    "anim__iss634.webp": R.ANIMATED,
    "aspect__big-height.webp": R.ANIMATED,
    "blur__Canon_IXUS_v2.jpg": (1600, 1200),
    "blur__Samsung_GT-I9505_Galaxy_S4_.jpg": (4128, 2322),
    "blur__blurred.png": (389, 535),
    "bomb__65536-uint32-limit.png": R.TOO_MANY_PIXELS,
    "bomb__giant-image.jpg": R.TOO_MANY_PIXELS,
    "bomb__png_decompression_dos.png": (1, 1),
    "chart__wandb_metrics.png": (1164, 690),
    "cmyk__Channel_digital_image_CMYK_color.jpg": (500, 333),
    "cmyk__cymk.jpg": (600, 397),
    "cmyk__pil_sample_cmyk.jpg": (100, 100),
    "corrupt__broken.png": R.CORRUPT,
    "corrupt__broken_data_stream.png": R.CORRUPT,
    "corrupt__corrupt-header.jpg": R.TRUNCATED,
    "dark__Issue_131.jpg": (2352, 1568),
    "diagram__weights_sharing.jpg": (4366, 1945),
    "document__ebfd571f1c6824316047a29cb5f376eec15f56dd51821119c1842be068a8b950.png": (2048, 2048),
    "empty__empty.jpg": R.BODY_EMPTY,
    "exif__Landscape_6.jpg": (1800, 1200),
    "exposure__julochka_Flickr_CC_BY-NC_2.0.jpg": (2048, 1360),
    "flat__6720px_white.jpg": (6720, 4480),
    "gray__flower.png.im_q85_gray.jpg": (2268, 1512),
    "gray__gamma_dalai_lama_gray.jpg": (258, 222),
    "gray__hopper_gray.jpg": (128, 128),
    "gray__poster-image-background.webp": (1440, 1747),
    "html__city.jpg": R.NOT_AN_IMAGE,
    "icc__icc_profile_big.jpg": (425, 250),
    "illustration__kate-hazen-mort1mer.png": (2560, 1440),
    "illustration__ocean-waves.jpg": (3840, 2160),
    "illustration__valley-midnight.jpg": (3840, 2160),
    "jpegcrushed__camp_jpg_compress.png": (2048, 1365),
    "lfs__1.jpg": R.NOT_AN_IMAGE,
    "lowcontrast__low-contrast.jpg": (300, 245),
    "lowres__389_535.jpg": (389, 535),
    "lowres__416_264.jpg": (416, 264),
    "lowres__hopper.jpg": (128, 128),
    "oldjpeg__hopper_16bit_qtables.jpg": (128, 128),
    "palette__p_trns_single.png": (64, 64),
    "png16__basn6a16.png": (32, 32),
    "screenshot__3140d643a1f57e80ff265507984d95a0.png": (2048, 1152),
    "screenshot__Excel-PowerAutomate-Flow.png": (3604, 7990),
    "svg__check.svg": R.NOT_AN_IMAGE,
    "svg__struct-image-04-t.svg": R.NOT_AN_IMAGE,
    "thermal__FLIR.jpg": (1080, 1440),
    "truncated__67-0_length_string.jpg": (4032, 2012),
    "truncated__incomplete_image.jpg": R.TRUNCATED,
    "truncated__truncated.jpg": R.TRUNCATED,
    "truncated__truncated.png": R.TRUNCATED,
    "watermark__168667147.jpg": (500, 500),
    "watermark__iptc-2014.jpg": (2100, 1050),
    "whitebg__60430844748882ff66b9a5598ef06dd6.png": (1446, 2048),
    "whitebg__contact-bg.jpg": (1900, 1267),
    "whitebg__flight-path-on-gray-c.jpg": (2400, 1440),
}


def _files(folder: str) -> list[Path]:
    return sorted(p for p in (DATA / folder).glob("*") if p.name != "SOURCES.tsv")


def _packed(image: Image.Image, name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


@cache
def _colours(width: int = 96, height: int = 64) -> Image.Image:
    """Textured enough for long Huffman codes, no two corners alike."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    picture.paste((255, 0, 0), (0, 0, width // 4, height // 4))
    return picture


def _turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _picture(body: bytes) -> Picture:
    result = decode(body)
    assert isinstance(result, Picture), result
    return result


def _reason(body: bytes) -> Reason:
    result = decode(body)
    assert isinstance(result, Refusal), result
    assert result.stage is Stage.DECODE
    assert result.detail
    return result.reason


def _close(pixels: np.ndarray, expected: Image.Image | np.ndarray, levels: int = 1) -> bool:
    wanted = np.asarray(expected)
    if wanted.dtype == np.uint8:  # without a wider copy of 24 megapixels
        wanted = np.maximum(pixels, wanted) - np.minimum(pixels, wanted) if pixels.shape == wanted.shape else wanted
        return pixels.shape == wanted.shape and int(wanted.max()) <= levels
    return pixels.shape == wanted.shape and float(np.abs(pixels - wanted).max()) <= levels


# --- real files ------------------------------------------------------------------------------------------------


@with_data
@pytest.mark.slow
def test_every_bad_file_becomes_what_the_table_says() -> None:
    found: dict[str, Reason | tuple[int, int]] = {}
    for path in _files("bad"):
        result = decode(path.read_bytes())
        found[path.name] = result.reason if isinstance(result, Refusal) else (result.width, result.height)
    assert found == BAD


@with_data
@pytest.mark.slow
def test_every_photograph_equals_pillow_s_picture_turned_and_in_srgb() -> None:
    photos = _files("photos")
    assert len(photos) == 56
    for path in photos:
        picture = _picture(path.read_bytes())
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image).convert("RGB")
            if profile := image.info.get("icc_profile"):
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                ImageCms.profileToProfile(upright, source, ImageCms.createProfile("sRGB"), inPlace=True)
        assert _close(picture.pixels, upright), path.name
        assert picture.pixels.flags.c_contiguous
        assert picture.pixels.dtype == np.uint8
        kind = header(path.read_bytes())
        assert isinstance(kind, Header)
        assert (kind.width, kind.height, kind.format) == (picture.width, picture.height, picture.format)


@with_data
@pytest.mark.parametrize("name", ["nextcloud_Frog.jpg", "nextcloud_Vineyard.jpg", "tt4_museum.webp"])
def test_a_photograph_cut_anywhere_is_truncated(name: str) -> None:
    body = (DATA / "photos" / name).read_bytes()
    for share in np.linspace(0.01, 0.999, 25):
        assert _reason(body[: int(len(body) * share)]) is Reason.TRUNCATED


@with_data
@pytest.mark.parametrize("name", ["nextcloud_Frog.jpg", "nextcloud_Vineyard.jpg"])
def test_most_damage_inside_a_photograph_is_found(name: str) -> None:
    """JPEG has no checksum: nine in ten of 64 overwritten bytes, and every hole of 16 KB."""
    body, rng = (DATA / "photos" / name).read_bytes(), random.Random(0)
    found = 0
    for _ in range(20):
        at = rng.randrange(len(body) // 5, len(body) * 4 // 5)
        found += isinstance(decode(body[:at] + rng.randbytes(64) + body[at + 64 :]), Refusal)
        assert isinstance(decode(body[:at] + bytes(16384) + body[at + 16384 :]), Refusal)
    assert found >= 14


# --- colours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_and_announced(name: str, orientation: int) -> None:
    options = {"exif": _turned(orientation)} | ({} if name == "PNG" else {"quality": 95})
    body = _packed(_colours(), name, **options)
    with Image.open(io.BytesIO(body)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert _close(_picture(body).pixels, expected, 0)
    size = (96, 64) if orientation < 5 else (64, 96)
    quality = 95.0 if name == "JPEG" else 100.0
    assert header(body) == Header(
        format=name.lower(), width=size[0], height=size[1], orientation=orientation, jpeg_quality=quality
    )


@pytest.mark.parametrize("quality", [1, 10, 24, 49, 50, 51, 75, 90, 100])
def test_a_jpegs_quality_is_read_off_its_tables(quality: int) -> None:
    seen = header(_packed(_colours(), "JPEG", quality=quality))
    assert isinstance(seen, Header)
    assert seen.jpeg_quality == quality


def test_alpha_is_composited_on_white() -> None:
    image = _colours().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(white, image).convert("RGB")
    assert _close(_picture(_packed(image, "PNG")).pixels, expected, 2)
    assert _close(_picture(_packed(image, "WEBP", lossless=True, exact=True)).pixels, expected, 2)
    grey = image.convert("LA")
    expected = Image.alpha_composite(white, grey.convert("RGBA")).convert("RGB")
    assert _close(_picture(_packed(grey, "PNG")).pixels, expected, 2)


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert _picture(_packed(image, "PNG")).pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert _picture(_packed(image, "PNG", transparency=0)).pixels.tolist() == [[[255] * 3, [0, 0, 255]]]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_has_three_equal_channels(mode: str) -> None:
    image = _colours().convert(mode)
    assert _close(_picture(_packed(image, "PNG")).pixels, image.convert("RGB"), 0)


def _png(kind: int, samples: np.ndarray, *chunks: bytes) -> bytes:
    """A 16-bit PNG of colour type `kind` from (H, W, C) samples, `chunks` before its data."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    ihdr = _chunk(b"IHDR", struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, kind, 0, 0, 0))
    tail = _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(chunks) + tail


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_are_scaled_not_clipped(kind: int, channels: int) -> None:
    ramp = np.linspace(0, 65535, 512).reshape(2, 256, 1).repeat(channels, axis=2).round()
    expected = np.broadcast_to(ramp / 257, (2, 256, 3))
    assert _close(_picture(_png(kind, ramp)).pixels, expected)


def test_sixteen_bits_of_grey_with_a_transparent_value() -> None:
    samples = np.array([[[100], [101]]])
    body = _png(0, samples, _chunk(b"tRNS", struct.pack(">H", 100)))
    assert _picture(body).pixels.tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert _close(_picture(_packed(cyan, "JPEG", quality=95)).pixels, np.full((16, 16, 3), (0, 255, 255)), 3)


def _profile_named(space: Literal["sRGB", "LAB"]) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def _swapped_srgb() -> bytes:
    """sRGB with the red and blue primaries exchanged, to see whether a profile is honoured."""
    profile = _profile_named("sRGB")
    return profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_an_embedded_profile_is_honoured(name: str) -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 30))
    pixels = _picture(_packed(red, name, icc_profile=_swapped_srgb())).pixels
    assert _close(pixels, np.full((32, 32, 3), (30, 30, 200)), 6)


@pytest.mark.parametrize("profile", [b"no profile", _profile_named("sRGB"), _profile_named("LAB")])
def test_a_profile_that_is_broken_or_does_not_fit_changes_nothing(profile: bytes) -> None:
    for mode in ("RGB", "L", "RGBA"):
        image = _colours().convert(mode)
        assert _close(_picture(_packed(image, "PNG", icc_profile=profile)).pixels, image.convert("RGB"), 0)


# --- what is refused -------------------------------------------------------------------------------------------


def test_frames_make_an_animation_and_one_frame_does_not() -> None:
    frames = [_colours(), _colours().rotate(90)]
    for name in ("GIF", "PNG", "WEBP"):
        moving = _packed(frames[0], name, save_all=True, append_images=frames[1:])
        assert _reason(moving) is Reason.ANIMATED
    assert _reason(_packed(_colours(), "GIF")) is Reason.FORMAT_REFUSED
    for name in ("PNG", "WEBP"):
        assert isinstance(decode(_packed(frames[0], name, save_all=True)), Picture)


@pytest.mark.parametrize("name", ["TIFF", "BMP", "ICO", "JPEG2000", "PPM", "TGA"])
def test_other_pictures_are_named_and_refused(name: str) -> None:
    expected = Reason.NOT_AN_IMAGE if name == "TGA" else Reason.FORMAT_REFUSED  # TGA has no signature
    assert _reason(_packed(_colours(), name)) is expected


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"\n\n <!DOCTYPE html><html>", "html"),
        (b"\xef\xbb\xbf<html>", "html"),
        (b'<?xml version="1.0"?>\n<!-- x --><svg xmlns="">', "svg"),
        (b"<svg width='1'/>", "svg"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        (b'{"error": 1}', "json"),
        (b"%PDF-1.7", "pdf"),
        (b"\0\0\0\x18ftypmp42", "video"),
        (b"Not found. The picture you want is gone.", "text"),
        (b"\x01\x02\x03\x04", "unknown, starts with 01020304"),
    ],
)
def test_what_is_no_picture_is_named(body: bytes, detail: str) -> None:
    assert decode(body) == Refusal(reason=Reason.NOT_AN_IMAGE, stage=Stage.DECODE, detail=detail)


def test_nothing_is_an_empty_body() -> None:
    assert _reason(b"") is Reason.BODY_EMPTY


def test_the_cap_is_on_pixels_and_comes_before_decoding() -> None:
    body = _packed(_colours(), "PNG")
    assert isinstance(decode(body, max_pixels=96 * 64), Picture)
    small = decode(body, max_pixels=96 * 64 - 1)
    assert isinstance(small, Refusal)
    assert small.reason is Reason.TOO_MANY_PIXELS
    bomb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    assert _reason(bomb + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")) is Reason.TOO_MANY_PIXELS


def test_text_that_unpacks_to_gigabytes_is_never_unpacked() -> None:
    bomb = _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 25)))
    assert isinstance(decode(_png(0, np.zeros((4, 4, 1)), *[bomb] * 20)), Picture)
    profile = _chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 25)))
    assert _reason(_png(0, np.zeros((4, 4, 1)), profile)) is Reason.CORRUPT


JPEGS = {
    "sequential": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "full chroma": {"subsampling": 0},
    "own tables": {"optimize": True},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_cut_and_closed_with_an_end_marker_is_truncated(options: dict[str, object]) -> None:
    """libjpeg fills the rest with grey and says nothing."""
    body = _packed(_colours(192, 160), "JPEG", quality=90, **options)
    assert isinstance(decode(body), Picture)
    start = body.index(b"\xff\xda") + 14
    for at in range(start, len(body) - 2, 97):
        assert isinstance(decode(body[:at] + b"\xff\xd9"), Refusal), at
        assert _reason(body[:at]) is Reason.TRUNCATED, at


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (17, 33), (100, 3)])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_sound_jpeg_of_any_size_passes(options: dict[str, object], size: tuple[int, int], mode: str) -> None:
    image = _colours().resize(size).convert(mode)
    body = _packed(image, "JPEG", quality=97, **(options if mode == "RGB" else {**options, "subsampling": -1}))
    with Image.open(io.BytesIO(body)) as expected:
        assert _close(_picture(body).pixels, expected.convert("RGB"), 0)


def test_what_follows_a_jpeg_is_not_looked_at() -> None:
    body = _packed(_colours(), "JPEG")
    expected = _picture(body).pixels
    for tail in (b"\0" * 5000, b"\xff\xd8\xff\xe1\x00", body[: len(body) // 2]):
        assert np.array_equal(_picture(body + tail).pixels, expected)


def test_a_multi_picture_jpeg_is_a_jpeg() -> None:
    body = _packed(_colours(), "MPO", save_all=True, append_images=[_colours().rotate(180)])
    assert _picture(body).format == "jpeg"


def test_a_jpeg_whose_last_scans_are_missing_is_truncated() -> None:
    body = _packed(_colours(), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    assert _reason(body[:last] + b"\xff\xd9") is Reason.TRUNCATED


def test_a_jpeg_made_of_empty_scans_is_refused() -> None:
    body = _packed(_colours(), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    assert _reason(body[:-2] + body[last:-2] * 300 + b"\xff\xd9") is Reason.CORRUPT


def test_arithmetic_coding_is_refused_by_name() -> None:
    body = _packed(_colours(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert _reason(body) is Reason.FORMAT_REFUSED


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["PNG", "WEBP", "AVIF"])
def test_a_cut_file_is_truncated(name: str, share: float) -> None:
    if name == "AVIF" and isinstance(decode(_avif()), Refusal):
        pytest.skip("this Pillow has no AVIF")
    body = _avif() if name == "AVIF" else _packed(_colours(), name)
    assert _reason(body[: int(len(body) * share)]) is Reason.TRUNCATED


@cache
def test_a_table_that_ends_early_says_nothing_of_the_quality() -> None:
    body = _packed(_colours(), "JPEG", quality=75)
    for table in (b"\x10" + bytes(3), b"\x10" + bytes(127), b"\x00" + bytes(63), b"\x10", b""):
        segment = b"\xff\xdb" + (2 + len(table)).to_bytes(2, "big") + table
        seen = header(body[:2] + segment + body[2:])
        assert isinstance(seen, Header) and seen.jpeg_quality == 75
        assert isinstance(decode(body[:2] + segment + body[2:]), Picture | Refusal)


def test_a_second_header_can_not_smuggle_a_larger_png_past_the_limit() -> None:
    body = _packed(_colours(), "PNG")
    small = b"IHDR" + struct.pack(">II", 1, 1) + body[24:29]
    first = (13).to_bytes(4, "big") + small + zlib.crc32(small).to_bytes(4, "big")
    assert _reason(body[:8] + first + body[8:]) is Reason.CORRUPT


def _avif() -> bytes:
    try:
        return _packed(_colours(), "AVIF")
    except KeyError:  # an unknown extension for Pillow before 11.3
        return b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"


def test_a_flipped_bit_in_a_png_is_corruption() -> None:
    body = bytearray(_packed(_colours(), "PNG"))
    body[len(body) // 2] ^= 1
    assert _reason(bytes(body)) is Reason.CORRUPT


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_whose_data_stop_short_is_truncated(
    monkeypatch: pytest.MonkeyPatch, interlaced: int, lenient: bool
) -> None:
    """All checksums are right, rows are missing; maybe another package has told Pillow to be lenient."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    for size in (1, 2, 10, 33):
        ihdr = _chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, interlaced))
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        rows = [
            b"\0" + bytes([9]) * 3 * len(range(left, size, across))
            for left, top, across, down in (passes if interlaced else [(0, 0, 1, 1)])
            for _ in range(top, size, down)
            if left < size
        ]
        for missing in (0, 1, 4):
            data = b"".join(rows)[: sum(map(len, rows)) - missing]
            body = b"\x89PNG\r\n\x1a\n" + ihdr + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
            if missing:
                assert _reason(body) is Reason.TRUNCATED
            else:
                assert _picture(body).pixels.min() == 9


# --- any bytes -------------------------------------------------------------------------------------------------


@cache
def _seeds() -> tuple[bytes, ...]:
    image, exif, profile = _colours(48, 32), _turned(6), _swapped_srgb()
    return (
        _packed(image, "JPEG", exif=exif, icc_profile=profile),
        _packed(image, "JPEG", progressive=True, restart_marker_blocks=2),
        _packed(image.convert("CMYK"), "JPEG"),
        _packed(image, "PNG", exif=exif, icc_profile=profile),
        _packed(image.convert("P"), "PNG", transparency=3),
        _png(4, np.arange(64).reshape(4, 8, 2) * 900),
        _packed(image, "WEBP"),
        _packed(image.convert("RGBA"), "WEBP", lossless=True, exif=exif, icc_profile=profile),
        _packed(image, "GIF"),
        _avif(),
    )


def _with_right_checksums(body: bytes) -> bytes:
    fixed, at = bytearray(body), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


@st.composite
def _mutations(draw: st.DrawFn) -> bytes:
    """A small real picture with bytes changed, taken out or put in, and with PNG's checksums put right."""
    body = bytearray(draw(st.sampled_from(_seeds())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(body), draw(st.sampled_from([40, 700, 10**6])))))
        body[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    if body.startswith(b"\x89PNG") and draw(st.booleans()):
        return _with_right_checksums(bytes(body))
    return bytes(body)


@settings(max_examples=800, deadline=None)
@given(st.one_of(_mutations(), st.binary(max_size=64)))
def test_any_bytes_give_a_picture_or_a_refusal(body: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, kind = decode(body, max_pixels=1 << 20), header(body)
    if isinstance(result, Picture):
        assert isinstance(kind, Header)
        assert result.pixels.shape == (kind.height, kind.width, 3)
        assert result.pixels.dtype == np.uint8
        assert result.pixels.flags.c_contiguous


@with_data
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for path in _files("bad"):
        if path.stat().st_size < 300_000:
            decode(path.read_bytes())
    assert capfd.readouterr() == ("", "")
