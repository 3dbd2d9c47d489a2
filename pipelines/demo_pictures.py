"""What the demo curates: pictures made by code, good and bad ones of each kind, and the list that links them.

60 files, 39 MB, 24 s of one core's time, the same bytes for the same seed and library versions. Most are little
over 1024 px a side: scoring costs about 1.5 s a megapixel, and the demo scores all that decode.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.records import Reason
from pipelines import demo_files as files
from pipelines import demo_landscapes as landscapes
from pipelines import demo_scenes as scenes
from pipelines.demo_files import Damage, Encode
from pipelines.demo_scenes import Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPicture:
    """One file of the demo."""

    name: str
    kind: str
    expected: frozenset[Reason]  # any of these fits it
    width: int  # pixels, upright; of what it was made from where it can't be decoded
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListLine:
    """One row of the demo's URL list, and the reasons any of which fits it."""

    url: str
    caption: str
    expected: frozenset[Reason]
    width: int = 1600
    height: int = 1200
    punsafe: float = 0.002
    pwatermark: float = 0.05


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True, kw_only=True, slots=True)
class _Good:
    name: str
    scene: Scene
    width: int
    height: int
    encode: Encode
    kind: str = "good"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bad:
    """A file made from the mirrored corner of a good picture (mirrored, so that it is no near duplicate of it)."""

    name: str
    kind: str
    expected: frozenset[Reason]
    damage: Damage = files.as_is
    encode: Encode = files.jpeg()  # noqa: RUF009 (a partial, immutable)
    of: str = ""  # the good picture's name; "" takes them in turn
    width: int = 1048
    height: int = 1036


_GOODS: Final = (
    _Good(name="foliage-1.jpg", scene=scenes.foliage, width=1280, height=1060, encode=files.jpeg()),
    _Good(name="foliage-2.png", scene=scenes.foliage, width=1070, height=1030, encode=files.png),
    _Good(name="foliage-3.jpg", scene=scenes.foliage, width=1045, height=1190, encode=files.jpeg(95, "4:4:4")),
    _Good(name="foliage-4.webp", scene=scenes.foliage, width=1090, height=1100, encode=files.webp),
    _Good(name="pebbles-1.jpg", scene=scenes.pebbles, width=1210, height=1045, encode=files.jpeg(94)),
    _Good(name="pebbles-2.jpg", scene=scenes.pebbles, width=1060, height=1180, encode=files.jpeg(93, progressive=True)),
    _Good(name="pebbles-3.jpg", scene=scenes.pebbles, width=1100, height=1130, encode=files.jpeg(93, "4:2:2")),
    _Good(name="pebbles-4.png", scene=scenes.pebbles, width=1062, height=1050, encode=files.png),
    _Good(name="wall-1.jpg", scene=scenes.wall, width=2048, height=1366, encode=files.jpeg(92)),
    _Good(name="wall-2.jpg", scene=scenes.wall, width=1075, height=1240, encode=files.turned_jpeg),
    _Good(name="wall-3.jpg", scene=scenes.wall, width=1130, height=1077, encode=files.jpeg(96, "4:4:4")),
    _Good(name="wall-4.png", scene=scenes.wall, width=1055, height=1041, encode=files.png),
    _Good(name="meadow-1.jpg", scene=scenes.meadow, width=1230, height=1050, encode=files.jpeg()),
    _Good(name="meadow-2.jpg", scene=scenes.meadow, width=1040, height=1150, encode=files.jpeg(94, progressive=True)),
    _Good(name="meadow-3.jpg", scene=scenes.meadow, width=1110, height=1085, encode=files.jpeg(93)),
    _Good(name="hills-1.jpg", scene=landscapes.hills, width=1933, height=1201, encode=files.jpeg(93)),
    _Good(name="hills-2.jpg", scene=landscapes.hills, width=1200, height=1065, encode=files.jpeg(94, "4:4:4")),
    _Good(name="hills-3.png", scene=landscapes.hills, width=1083, height=1046, encode=files.png),
    _Good(name="hills-4.jpg", scene=landscapes.hills, width=1320, height=1034, encode=files.jpeg(92, "4:2:2")),
    _Good(name="planks-1.jpg", scene=scenes.planks, width=1240, height=1060, encode=files.jpeg(93)),
    _Good(name="planks (old) ä.jpg", scene=scenes.planks, width=1050, height=1250, encode=files.jpeg(95)),
    _Good(name="planks-3.webp", scene=scenes.planks, width=1095, height=1055, encode=files.webp),
    _Good(name="sky-1.jpg", scene=landscapes.open_sky, width=1310, height=1060, encode=files.jpeg(93), kind="sky"),
    _Good(name="sky-2.png", scene=landscapes.open_sky, width=1090, height=1170, encode=files.png, kind="sky"),
    _Good(name="gray.jpg", scene=scenes.foliage, width=1060, height=1040, encode=files.gray, kind="gray"),
    _Good(name="cmyk.jpg", scene=scenes.pebbles, width=1050, height=1040, encode=files.cmyk, kind="cmyk"),
    _Good(name="deep-16bit.png", scene=scenes.wall, width=1036, height=1030, encode=files.png16, kind="16-bit"),
)

_KEPT: Final = frozenset({Reason.KEPT})
_LOW: Final = frozenset({Reason.LOW_QUALITY})
_SMALL: Final = frozenset({Reason.TOO_SMALL})
_DOUBT: Final = frozenset({Reason.KEPT, Reason.LOW_QUALITY})
_FLAT: Final = frozenset({Reason.FLAT, Reason.UNSCORABLE, Reason.LOW_QUALITY})
_MARKED: Final = frozenset({Reason.DECLARED_WATERMARK})
_CUT: Final = frozenset({Reason.TRUNCATED})
_BROKEN: Final = frozenset({Reason.CORRUPT})
_MOVING: Final = frozenset({Reason.ANIMATED})
_NO_IMAGE: Final = frozenset({Reason.NOT_AN_IMAGE})
_EMPTY: Final = frozenset({Reason.BODY_EMPTY})

_BADS: Final = (
    _Bad(name="blur-gauss-3.jpg", kind="blur", expected=_LOW, damage=partial(files.blurred, 3.0)),
    _Bad(name="blur-gauss-6.png", kind="blur", expected=_LOW, damage=partial(files.blurred, 6.0), encode=files.png),
    _Bad(name="blur-motion.jpg", kind="blur", expected=_LOW, damage=partial(files.shaken, 25)),
    _Bad(name="blur-defocus.jpg", kind="blur", expected=_LOW, damage=partial(files.defocused, 7)),
    _Bad(name="noise-30.jpg", kind="noise", expected=_LOW, damage=partial(files.noisy, 30.0)),
    _Bad(name="noise-55.jpg", kind="noise", expected=_LOW, damage=partial(files.noisy, 55.0)),
    _Bad(name="noise-pepper.png", kind="noise", expected=_LOW, damage=partial(files.peppered, 0.04), encode=files.png),
    _Bad(name="crushed-q10.jpg", kind="crushed", expected=_LOW, encode=files.jpeg(10)),
    _Bad(
        name="crushed-q10-again.png", kind="crushed", expected=_LOW, damage=partial(files.crushed, 10), encode=files.png
    ),
    _Bad(name="crushed-q5.jpg", kind="crushed", expected=_LOW, encode=files.jpeg(5)),
    _Bad(name="upscaled-1.jpg", kind="upscaled", expected=_LOW, damage=partial(files.upscaled, 4)),
    _Bad(name="upscaled-2.jpg", kind="upscaled", expected=_LOW, damage=partial(files.upscaled, 4)),
    _Bad(name="palette.png", kind="palette", expected=_DOUBT, encode=files.palette),
    _Bad(
        name="watermark-1.jpg",
        kind="watermark",
        expected=_MARKED,
        damage=partial(files.watermarked, "© SAMPLE"),
        of="foliage-2.png",
    ),
    _Bad(
        name="watermark-2.jpg",
        kind="watermark",
        expected=_MARKED,
        damage=partial(files.watermarked, "PREVIEW ONLY"),
        of="wall-4.png",
    ),
    _Bad(
        name="watermark-unlisted.jpg",  # the list does not know of it: nothing here sees a watermark
        kind="watermark, unlisted",
        expected=_DOUBT,
        damage=partial(files.watermarked, "© SAMPLE"),
    ),
    _Bad(name="flat-white.png", kind="flat", expected=_FLAT, damage=files.white, encode=files.png),
    _Bad(name="flat-backdrop.jpg", kind="flat", expected=_FLAT, damage=files.gradient),
    _Bad(name="flat-product.jpg", kind="product", expected=_DOUBT, damage=files.product, of="pebbles-3.jpg"),
    _Bad(name="small-1.jpg", kind="small", expected=_SMALL, width=640, height=480),
    _Bad(name="small-2.png", kind="small", expected=_SMALL, width=1040, height=900, encode=files.png),
    _Bad(name="small-3.webp", kind="small", expected=_SMALL, width=301, height=1030, encode=files.webp),
    _Bad(name="truncated-1.jpg", kind="truncated", expected=_CUT, encode=partial(files.truncated, files.jpeg())),
    _Bad(name="truncated-2.png", kind="truncated", expected=_CUT, encode=partial(files.truncated, files.png)),
    _Bad(name="corrupt-1.jpg", kind="corrupt", expected=_BROKEN, encode=files.corrupt_jpeg),
    _Bad(name="corrupt-2.png", kind="corrupt", expected=_BROKEN, encode=files.corrupt_png),
    _Bad(name="animated.gif", kind="animated", expected=_MOVING, encode=partial(files.animation, "GIF")),
    _Bad(name="animated.png", kind="animated", expected=_MOVING, encode=partial(files.animation, "PNG")),
    _Bad(name="page.jpg", kind="html", expected=_NO_IMAGE, encode=partial(files.fixed, files.PAGE)),
    _Bad(name="empty.jpg", kind="empty", expected=_EMPTY, encode=partial(files.fixed, b"")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Again:
    """A second copy of a good picture; listed after it, so that it is the copy that goes."""

    name: str
    of: str
    damage: Damage
    encode: Encode


_AGAIN: Final = (
    _Again(name="near-1.jpg", of="pebbles-1.jpg", damage=files.as_is, encode=files.jpeg(75)),
    _Again(name="near-2.jpg", of="hills-1.jpg", damage=partial(files.resized, 1660, 1031), encode=files.jpeg(90)),
)
_TWIN: Final = ("exact.jpg", "foliage-1.jpg")


def make_pictures(folder: Path, seed: int = 0) -> list[DemoPicture]:
    """Writes the demo's pictures into `folder` (made if missing); good ones first, copies last."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        shown = pool.map(partial(_draw, seed), range(len(_GOODS)))
        drawn = {good.name: pixels for good, pixels in zip(_GOODS, shown, strict=True)}
        made = list(pool.map(partial(_save, folder, drawn), _GOODS))
        made += pool.map(partial(_spoil, folder, seed, drawn), range(len(_BADS)))
    made += [_repeat(folder, drawn[again.of], again) for again in _AGAIN]
    return [*made, _twin(folder, made)]


def _draw(seed: int, number: int) -> np.ndarray:
    good, rng = _GOODS[number], np.random.default_rng([seed, number])
    return scenes.expose(rng, good.scene(rng, good.height, good.width))


def _save(folder: Path, drawn: dict[str, np.ndarray], good: _Good) -> DemoPicture:
    return _put(folder, good.name, good.kind, _KEPT, good.encode, drawn[good.name])


def _spoil(folder: Path, seed: int, drawn: dict[str, np.ndarray], number: int) -> DemoPicture:
    bad, rng = _BADS[number], np.random.default_rng([seed, len(_GOODS) + number])
    donors = [good.name for good in _GOODS if good.kind == "good"]
    donor = drawn[bad.of or donors[number % len(donors)]]
    corner = np.ascontiguousarray(donor[: bad.height, : bad.width][:, ::-1])
    return _put(folder, bad.name, bad.kind, bad.expected, bad.encode, bad.damage(rng, corner))


def _repeat(folder: Path, pixels: np.ndarray, again: _Again) -> DemoPicture:
    expected = frozenset({Reason.DUPLICATE_NEAR})
    damaged = again.damage(np.random.default_rng(0), pixels)
    return _put(folder, again.name, "near duplicate", expected, again.encode, damaged)


def _twin(folder: Path, made: Iterable[DemoPicture]) -> DemoPicture:
    name, of = _TWIN
    original = next(picture for picture in made if picture.name == of)
    (folder / name).write_bytes((folder / of).read_bytes())
    expected = frozenset({Reason.DUPLICATE_EXACT})
    return replace(original, name=name, kind="exact duplicate", expected=expected)


def _put(
    folder: Path, name: str, kind: str, expected: frozenset[Reason], encode: Encode, pixels: np.ndarray
) -> DemoPicture:
    (folder / name).write_bytes(encode(pixels))
    height, width = pixels.shape[:2]
    return DemoPicture(name=name, kind=kind, expected=expected, width=width, height=height)


# ---------------------------------------------------------------- lists


def list_lines(pictures: Sequence[DemoPicture], base_url: str) -> list[ListLine]:
    """What `write_list` writes: the pictures in order, with rows that point nowhere or are refused unasked."""
    return [*(_line(picture, base_url) for picture in pictures), *_odd_lines(pictures[0], base_url)]


def write_list(pictures: Sequence[DemoPicture], base_url: str, path: Path) -> None:
    """Writes the URL list (Parquet, LAION-HR's columns) for a server of the pictures' folder at `base_url`."""
    lines = list_lines(pictures, base_url)
    columns = {
        "URL": pa.array([line.url for line in lines], pa.string()),
        "TEXT": pa.array([line.caption for line in lines], pa.string()),
        "WIDTH": pa.array([line.width for line in lines], pa.int32()),
        "HEIGHT": pa.array([line.height for line in lines], pa.int32()),
        "similarity": pa.array([0.3] * len(lines), pa.float64()),
        "hash": pa.array(range(len(lines)), pa.int64()),
        "LANGUAGE": pa.array(["en"] * len(lines), pa.string()),
        "punsafe": pa.array([line.punsafe for line in lines], pa.float32()),
        "pwatermark": pa.array([line.pwatermark for line in lines], pa.float32()),
    }
    pq.write_table(pa.table(columns), path, compression="snappy")


def write_folder_list(folder: Path, base_url: str, path: Path) -> None:
    """Writes a URL list (Parquet, URL and TEXT) of all files under `folder`, for a server of it at `base_url`.

    Hidden files and folders are left out, and links, which the server might refuse. Raises ValueError where
    `folder` is no folder or holds no file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one that holds pictures")
    names = sorted(_visible_files(folder))
    if not names:
        raise ValueError(f"{folder} holds no files: give a folder of pictures")
    urls = [f"{base_url}/{quote(os.fsencode(name))}" for name in names]
    captions = [os.fsencode(Path(name).stem).decode("utf-8", "replace") for name in names]
    columns = {"URL": pa.array(urls, pa.string()), "TEXT": pa.array(captions, pa.string())}
    pq.write_table(pa.table(columns), path, compression="snappy")


def _visible_files(folder: Path) -> Iterator[str]:
    """Paths relative to `folder`, with forward slashes."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            if not name.startswith(".") and file.is_file() and not file.is_symlink():
                yield file.relative_to(folder).as_posix()


def _line(picture: DemoPicture, base_url: str) -> ListLine:
    """A link to one picture. Of the small ones the list says what lists say: that they are large."""
    large = min(picture.width, picture.height) >= 1024
    return ListLine(
        url=f"{base_url}/{quote(picture.name)}",
        caption=f"{picture.name.partition('.')[0]}, drawn by code ({picture.kind})",
        expected=picture.expected,
        width=picture.width if large else 1600,
        height=picture.height if large else 1200,
        pwatermark=0.93 if picture.kind == "watermark" else 0.05,
    )


def _odd_lines(first: DemoPicture, base_url: str) -> list[ListLine]:
    good = f"{base_url}/{quote(first.name)}"
    unresolved = frozenset({Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER})

    def line(url: str, caption: str, *expected: Reason, **declared: Any) -> ListLine:
        return ListLine(url=url, caption=caption, expected=frozenset(expected), **declared)

    return [
        line(f"{base_url}/gone-1.jpg", "a picture that is gone", Reason.HTTP_NOT_FOUND),
        line(f"{base_url}/gone/2.png", "another that is gone", Reason.HTTP_NOT_FOUND),
        line(good, "listed twice", Reason.URL_REPEATED),
        line("ftp://pictures.invalid/x.jpg", "not http", Reason.URL_NOT_HTTP),
        line("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "a picture within a link", Reason.URL_NOT_HTTP),
        line("http://[::1/x.jpg", "a bracket is missing", Reason.URL_MALFORMED),
        line("", "no link at all", Reason.URL_MALFORMED),
        ListLine(url="http://nowhere.invalid/x.jpg", caption="an unknown host", expected=unresolved),
        line(f"{good}?unsafe", "declared unsafe", Reason.DECLARED_UNSAFE, punsafe=0.97),
        line(f"{good}?marked", "declared watermarked", Reason.DECLARED_WATERMARK, pwatermark=0.99),
        line(f"{good}?small", "declared small", Reason.DECLARED_TOO_SMALL, width=640, height=480),
    ]
