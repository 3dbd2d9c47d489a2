"""The demo's pictures are what their kind says, the list links them, and both are functions of the seed."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.request import urlopen

import cv2
import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.decode import decode
from curation.judge import Thresholds
from curation.records import Picture, Reason, Refusal, Stage
from curation.urls import check_list, first_occurrences, first_row, read_links
from jobs.demo_server import serve
from pipelines.demo_landscapes import hills, open_sky
from pipelines.demo_pictures import DemoPicture, list_lines, make_pictures, write_folder_list, write_list
from pipelines.demo_scenes import Scene, expose, foliage, fractal, meadow, pebbles, planks, wall
from shards.patches import flat_fraction, grid

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
SCENES = [foliage, pebbles, wall, planks, meadow, hills, open_sky]
BASE = "http://127.0.0.1:8000"
#: what `decode` finds; the later stages find the rest
AT_DECODE = {Reason.BODY_EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED, Reason.CORRUPT, Reason.ANIMATED}


def _shot(scene: Scene, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return expose(rng, scene(rng, 261, 303))


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_a_function_of_its_generator(scene: Scene) -> None:
    first = _shot(scene, 3)
    assert first.shape == (261, 303, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, _shot(scene, 3))
    assert (first != _shot(scene, 4)).mean() > 0.5


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_noise_falls_off_by_its_exponent(exponent: float) -> None:
    noise = fractal(np.random.default_rng(0), 512, 512, exponent)
    amplitude = np.abs(np.fft.fft2(noise))
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None, :])
    low, high = (amplitude[(radius > f * 0.9) & (radius < f * 1.1)].mean() for f in (0.02, 0.32))
    assert np.log(low / high) / np.log(16) == pytest.approx(exponent, abs=0.05)


def test_the_camera_exposes_dark_and_bright_scenes_alike() -> None:
    light = foliage(np.random.default_rng(1), 200, 200)
    dark, bright = (expose(np.random.default_rng(2), light * scale).mean() for scale in (1, 8))
    assert dark == pytest.approx(bright, abs=12)


# ---------------------------------------------------------------- lists


def _some_pictures() -> list[DemoPicture]:
    def picture(name: str, kind: str, side: int, reason: Reason) -> DemoPicture:
        return DemoPicture(name=name, kind=kind, expected=frozenset({reason}), width=side, height=1100)

    return [
        picture("planks (old) ä.jpg", "good", 1300, Reason.KEPT),
        picture("mark.jpg", "watermark", 1200, Reason.DECLARED_WATERMARK),
        picture("small.jpg", "small", 640, Reason.TOO_SMALL),
    ]


def test_the_list_has_the_columns_and_types_of_laion_high_resolution(tmp_path: Path) -> None:
    write_list(_some_pictures(), BASE, tmp_path / "list.parquet")
    schema = pq.read_schema(tmp_path / "list.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "URL": "string",
        "TEXT": "string",
        "WIDTH": "int32",
        "HEIGHT": "int32",
        "similarity": "double",
        "hash": "int64",
        "LANGUAGE": "string",
        "punsafe": "float",
        "pwatermark": "float",
    }


def test_a_row_to_be_refused_unasked_is_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    write_list(_some_pictures(), BASE, path)
    check_list(path)
    lines = list_lines(_some_pictures(), BASE)
    links = list(read_links([path], "demo"))
    refused = set()
    for line, link, first in zip(lines, links, first_occurrences([path]), strict=True):
        row = first_row(link, bool(first), Thresholds(), allow_private=True)
        assert link.url == line.url
        if row.stage is Stage.LIST:
            assert row.reason in line.expected, line
            refused.add(row.reason)
        else:
            assert row.reason is Reason.NOT_MEASURED
    assert refused == {
        Reason.URL_MALFORMED,
        Reason.URL_NOT_HTTP,
        Reason.URL_REPEATED,
        Reason.DECLARED_TOO_SMALL,
        Reason.DECLARED_UNSAFE,
        Reason.DECLARED_WATERMARK,
    }


def test_a_folder_s_list_leads_to_each_visible_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    names = ["a b.jpg", "deep/ä#1?.png", "deep/er/100%.webp", "page.txt"]
    for name in [*names, ".hidden.jpg", ".trash/x.jpg", "deep/.thumb/y.jpg"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "link.jpg").symlink_to(folder / "a b.jpg")
    with serve(folder) as base:
        write_folder_list(folder, base, tmp_path / "list.parquet")
        urls = pq.read_table(tmp_path / "list.parquet")["URL"].to_pylist()
        bodies = [urlopen(url).read().decode() for url in urls]
    assert bodies == sorted(names)


def test_a_name_that_is_no_text_is_listed_and_served(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "caf\udce9.jpg").write_bytes(b"latin-1")
    with serve(folder) as base:
        write_folder_list(folder, base, tmp_path / "list.parquet")
        (url,) = pq.read_table(tmp_path / "list.parquet")["URL"].to_pylist()
        assert urlopen(url).read() == b"latin-1"


def test_a_folder_with_nothing_to_list_is_named(tmp_path: Path) -> None:
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds no files"):
        write_folder_list(tmp_path, BASE, tmp_path / "list.parquet")
    with pytest.raises(ValueError, match="is no folder"):
        write_folder_list(tmp_path / "nowhere", BASE, tmp_path / "list.parquet")


# ---------------------------------------------------------------- the files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[DemoPicture]:
    return make_pictures(folder)


@pytest.fixture(scope="module")
def decoded(folder: Path, pictures: list[DemoPicture]) -> dict[str, Picture | Refusal]:
    return {picture.name: decode((folder / picture.name).read_bytes()) for picture in pictures}


def _of_kind(pictures: list[DemoPicture], *kinds: str) -> list[str]:
    return [picture.name for picture in pictures if picture.kind in kinds]


def _pixels(decoded: dict[str, Picture | Refusal], name: str) -> np.ndarray:
    picture = decoded[name]
    assert isinstance(picture, Picture), picture
    return picture.pixels


@pytest.mark.slow
def test_the_folder_holds_the_pictures_and_stays_small(folder: Path, pictures: list[DemoPicture]) -> None:
    assert sorted(file.name for file in folder.iterdir()) == sorted(picture.name for picture in pictures)
    assert len(pictures) == 60
    assert sum(file.stat().st_size for file in folder.iterdir()) < 60e6


@pytest.mark.slow
def test_what_decoding_must_find_it_finds_and_the_rest_has_its_declared_size(
    pictures: list[DemoPicture], decoded: dict[str, Picture | Refusal]
) -> None:
    for picture in pictures:
        found = decoded[picture.name]
        if isinstance(found, Refusal):
            assert found.reason in picture.expected, picture
        else:
            assert not picture.expected & AT_DECODE, picture
            assert (found.width, found.height) == (picture.width, picture.height)


@pytest.mark.slow
def test_good_pictures_have_room_for_patches_and_sides_off_every_grid(pictures: list[DemoPicture]) -> None:
    good = [picture for picture in pictures if Reason.KEPT in picture.expected]
    assert all(min(p.width, p.height) >= 1024 and max(p.width, p.height) <= 2048 for p in good)
    assert not any(p.width % 16 == 0 and p.height % 16 == 0 for p in good)


@pytest.mark.slow
def test_good_jpegs_come_in_each_layout(folder: Path, pictures: list[DemoPicture]) -> None:
    layouts, progressive, orientations = set(), set(), set()
    for name in _of_kind(pictures, "good"):
        with Image.open(folder / name) as image:
            if image.format == "JPEG":
                layouts.add(image.layer[0][1:3])
                progressive.add("progressive" in image.info)
                orientations.add(image.getexif().get(0x0112))
    assert layouts == {(1, 1), (2, 1), (2, 2)}
    assert progressive == {False, True}
    assert orientations == {None, 6}


@pytest.mark.slow
def test_copies_are_copies_and_no_two_others_are_alike(
    folder: Path, pictures: list[DemoPicture], decoded: dict[str, Picture | Refusal]
) -> None:
    assert (folder / "exact.jpg").read_bytes() == (folder / "foliage-1.jpg").read_bytes()
    hashes = {
        name: imagehash.phash(Image.fromarray(_pixels(decoded, name)))
        for name in _of_kind(pictures, "good", "sky", "gray", "cmyk", "16-bit", "near duplicate", "palette")
    }
    assert hashes["near-1.jpg"] - hashes["pebbles-1.jpg"] <= 2
    assert hashes["near-2.jpg"] - hashes["hills-1.jpg"] <= 2
    singles = [hash for name, hash in hashes.items() if not name.startswith("near")]
    assert min(a - b for i, a in enumerate(singles) for b in singles[i + 1 :]) > 8


@pytest.mark.slow
def test_only_skies_and_white_pages_lose_patches_to_flatness(
    pictures: list[DemoPicture], decoded: dict[str, Picture | Refusal]
) -> None:
    def flat(name: str) -> list[bool]:
        pixels = _pixels(decoded, name)
        boxes = grid(*pixels.shape[:2])
        return [flat_fraction(pixels[b.top : b.top + b.size, b.left : b.left + b.size]) > 0.5 for b in boxes]

    for name in _of_kind(pictures, "sky"):
        assert any(flat(name)) and not all(flat(name))
    assert all(flat("flat-product.jpg")) and all(flat("flat-white.png"))
    assert not any(any(flat(n)) for n in _of_kind(pictures, "good") if not n.startswith("hills"))


@pytest.mark.slow
def test_niqe_of_its_authors_parts_the_good_from_the_degraded(
    pictures: list[DemoPicture], decoded: dict[str, Picture | Refusal]
) -> None:
    """NIQE with the authors' parameters, never shown such a picture: all good ones score lower (better)."""
    parameters = SHARED / "data" / "iqa" / "niqe_modelparameters.mat"
    if not parameters.is_file():
        pytest.skip("the authors' NIQE parameters are not here")
    torch, pyiqa = pytest.importorskip("torch"), pytest.importorskip("pyiqa")
    niqe = pyiqa.create_metric("niqe", pretrained_model_path=str(parameters), device="cpu")

    def score(name: str) -> float:
        middle = np.ascontiguousarray(_pixels(decoded, name)[200:800, 200:800])
        with torch.no_grad():
            return float(niqe(torch.from_numpy(middle).permute(2, 0, 1)[None].float() / 255))

    good = [score(f"{family}-1.jpg") for family in ("foliage", "pebbles", "wall", "meadow", "hills", "planks")]
    bad = [score(name) for name in _of_kind(pictures, "blur", "noise", "crushed", "upscaled")]
    assert max(good) < min(bad)


@pytest.mark.slow
def test_a_watermark_is_there_to_be_seen(decoded: dict[str, Picture | Refusal]) -> None:
    """The marked corner is brighter than the good picture that it was cut from, where the text is, and only there."""
    marked = _pixels(decoded, "watermark-2.jpg").astype(float)
    clean = _pixels(decoded, "wall-4.png")[: marked.shape[0], : marked.shape[1]][:, ::-1].astype(float)
    lift = cv2.blur((marked - clean).mean(axis=2), (5, 5))
    assert 0.02 < (lift > 20).mean() < 0.3
    assert np.median(np.abs(lift)) < 3


@pytest.mark.slow
def test_the_palette_and_deep_files_are_what_their_names_say(folder: Path) -> None:
    with Image.open(folder / "palette.png") as image:
        assert image.mode == "P"
    with Image.open(folder / "cmyk.jpg") as image:
        assert image.mode == "CMYK"
    with Image.open(folder / "gray.jpg") as image:
        assert image.mode == "L"
    header = (folder / "deep-16bit.png").read_bytes()[:33]
    assert header[24] == 16  # bits per sample, the first byte after width and height
    assert Image.open(io.BytesIO((folder / "animated.gif").read_bytes())).n_frames == 3  # type: ignore[attr-defined]
