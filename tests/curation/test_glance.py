"""A file's first bytes: what they say is what the whole file says, and they never refuse what it would not."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.containers import Refused
from curation.decode import decode, header
from curation.glance import LOOKS, Glance, read_header
from curation.judge import JPEG_QUALITY, MetricThreshold, Thresholds, size
from curation.records import Header, Reason, Refusal, Seen
from tests.conftest import SHARED

QUALITY = MetricThreshold(metric=JPEG_QUALITY, bound=40.0, lower_better=False)
GLANCE = Glance(thresholds=Thresholds(min_res=256, metrics=(QUALITY,)), max_pixels=1_000_000)


def packed(width: int, height: int, format: str, **options: object) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format, **options)
    return sink.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


PICTURES = {
    "jpeg": packed(300, 280, "JPEG", quality=80),
    "progressive": packed(300, 280, "JPEG", quality=80, progressive=True),
    "turned jpeg": packed(300, 280, "JPEG", quality=80, exif=turned()),
    "jpeg with a profile": packed(300, 280, "JPEG", quality=80, icc_profile=bytes(90_000)),
    "png": packed(300, 280, "PNG"),
    "turned png": packed(300, 280, "PNG", exif=turned()),
    "webp": packed(300, 280, "WEBP", quality=80),
    "lossless webp": packed(300, 280, "WEBP", lossless=True),
    "webp with a profile": packed(300, 280, "WEBP", quality=80, icc_profile=bytes(9000)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_start_of_a_picture_says_what_the_whole_says_or_nothing(name: str) -> None:
    body = PICTURES[name]
    whole = header(body)
    seen = [read_header(body[:length]) for length in range(1, len(body) + 1, 97)]
    known = [one for one in seen if one is not None]
    assert known and all(one == whole for one in known)
    assert seen.index(known[0]) < 0.75 * len(seen)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (packed(255, 300, "JPEG"), Reason.TOO_SMALL),
        (packed(255, 300, "PNG"), Reason.TOO_SMALL),
        (packed(300, 255, "WEBP"), Reason.TOO_SMALL),
        (packed(1001, 1000, "JPEG"), Reason.TOO_MANY_PIXELS),
        (packed(300, 300, "JPEG", quality=39), Reason.LOW_QUALITY),
        (b"<!DOCTYPE html><html>" + bytes(9000), Reason.NOT_AN_IMAGE),
        (packed(1500, 1000, "BMP"), Reason.FORMAT_REFUSED),
    ],
)
def test_what_can_not_be_kept_is_refused_by_its_first_kilobytes(body: bytes, reason: Reason) -> None:
    seen = GLANCE(body[: LOOKS[0]])
    assert seen is not None and seen.refusal is not None
    assert seen.refusal.reason is reason


def test_an_animation_is_refused_once_it_shows() -> None:
    frames = [Image.effect_noise((300, 300), 90 + n).convert("RGB") for n in range(3)]
    for format in ("PNG", "GIF"):
        sink = io.BytesIO()
        frames[0].save(sink, format, save_all=True, append_images=frames[1:])
        body = sink.getvalue()
        answers = [GLANCE(body[:length]) for length in (*(n for n in LOOKS if n < len(body)), len(body))]
        said = [one for one in answers if one is not None]
        assert said and all(one.refusal is not None and one.refusal.reason is Reason.ANIMATED for one in said)


@pytest.mark.parametrize("late", [False, True])
def test_two_counts_of_frames_are_an_animation_to_both_readers(late: bool) -> None:
    body = packed(300, 280, "PNG")
    many, one = (b"acTL" + frames.to_bytes(4, "big") + bytes(4) for frames in (5, 1))
    first, second = ((8).to_bytes(4, "big") + it + zlib.crc32(it).to_bytes(4, "big") for it in (many, one))
    body = body[:33] + first + (b"" if late else second) + body[33:-12] + (second if late else b"") + body[-12:]
    seen, whole = GLANCE(body), decode(body)
    assert seen is not None and seen.refusal is not None and isinstance(whole, Refusal)
    assert seen.refusal.reason is whole.reason is Reason.ANIMATED


def test_one_frame_of_a_gif_does_not_say_whether_there_are_more() -> None:
    assert read_header(packed(300, 300, "GIF")[: LOOKS[0]]) is None


def test_a_picture_that_may_be_kept_is_let_through() -> None:
    seen = GLANCE(packed(300, 300, "JPEG", quality=40)[: LOOKS[0]])
    assert seen == Seen(header=Header(format="jpeg", width=300, height=300, orientation=1, jpeg_quality=40.0))


def test_noise_behind_a_picture_s_magic_never_raises() -> None:
    rng = random.Random(0)
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\0\0\0\x1cftypavif", b""):
        for _ in range(300):
            GLANCE(magic + rng.randbytes(rng.choice((10, 100, 5000))))


def real_files() -> list[Path]:
    return sorted(path for kind in ("photos", "bad") for path in (SHARED / "data" / kind).glob("*") if path.is_file())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real files in ../shared")
def test_no_real_file_is_refused_early_that_would_be_kept_when_read_whole() -> None:
    refused_early = 0
    for path in real_files():
        body = path.read_bytes()
        for length in (one for one in LOOKS if one < len(body)):
            seen = Glance(thresholds=Thresholds(), max_pixels=1 << 24)(body[:length])
            if seen is not None and seen.refusal is not None:
                refused_early += 1
                assert not _may_be_kept(body), (path.name, seen)
                break
    assert refused_early >= 10


def _may_be_kept(body: bytes) -> bool:
    picture = decode(body, 1 << 24)
    return not isinstance(picture, Refusal) and size(Thresholds(), picture.width, picture.height) is None


def test_what_the_whole_file_raises_for_a_start_raises_too() -> None:
    arithmetic = packed(300, 280, "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1)
    with pytest.raises(Refused):
        read_header(arithmetic)
    assert isinstance(header(arithmetic), Refusal)
