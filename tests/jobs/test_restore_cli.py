"""`dynet-restore`: what becomes of names, forms, bits and tags, and one sentence for what can't be."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import dynet
from dynet import weights
from dynet.model import DyNet, ModelConfig
from jobs.restore import main
from pipelines.picture_file import opened
from tests.conftest import SHARED

CONFIG = ModelConfig(width=8, refinement=0)
SHALLOW = "1,1,1,1"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("weights") / "dynet.pt"
    torch.save(weights.written(CONFIG, DyNet(CONFIG).state_dict()), path)
    return path


def drawn(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape).astype(kind)


def saved(path: Path, samples: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples).save(path, **options)
    return path


def run(checkpoint: Path, out: Path, *words: object, depth: str = SHALLOW) -> int:
    return main([*map(str, words), "--out", str(out), "--checkpoint", str(checkpoint), "--depth", depth])


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said on stderr: one line."""
    assert main([*map(str, words)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("dynet-restore: ")
    return said


# ---------------------------------------------------------------- files


def test_a_folder_keeps_its_names_and_forms_and_a_second_run_does_the_same(checkpoint: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "deep/b.JPG", "deep/er/c.tif", "d.webp", "e.bmp"):
        saved(given / name, drawn(9, 10, 3))
    saved(given / ".hidden" / "f.png", drawn(9, 10, 3))
    (given / "notes.txt").write_text("no picture")
    assert run(checkpoint, out, given) == 0
    assert below(out) == ["a.png", "d.webp", "deep/b.png", "deep/er/c.tif", "e.bmp"]
    before = {name: (out / name).read_bytes() for name in below(out)}
    assert run(checkpoint, out, given) == 0
    assert {name: (out / name).read_bytes() for name in below(out)} == before


def test_what_is_written_is_what_the_network_makes_of_it(checkpoint: Path, tmp_path: Path) -> None:
    given = drawn(17, 20, 3)
    assert run(checkpoint, tmp_path / "out", saved(tmp_path / "a.png", given)) == 0
    restored = dynet.load(checkpoint, device="cpu").restore(given, SHALLOW)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), restored)
    assert not np.array_equal(restored, given)


def test_patterns_keep_the_places_below_their_fixed_part(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("x/a.png", "x/y/b.png", "x/y/c.jpg"):
        saved(tmp_path / "in" / name, drawn(8, 8, 3))
    assert run(checkpoint, tmp_path / "out", tmp_path / "in" / "**" / "*.png") == 0
    assert below(tmp_path / "out") == ["x/a.png", "x/y/b.png"]


def test_out_below_the_folder_is_no_input_of_the_next_run(checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "in" / "a.png", drawn(8, 8, 3))
    for _ in range(2):
        assert run(checkpoint, tmp_path / "in" / "restored", tmp_path / "in") == 0
    assert below(tmp_path / "in") == ["a.png", "restored/a.png"]


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_and_profile_are_kept(suffix: str, checkpoint: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann Artist"
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    path = saved(tmp_path / f"a{suffix}", drawn(8, 12, 3), exif=exif.tobytes(), icc_profile=PROFILE)
    assert run(checkpoint, tmp_path / "out", path) == 0
    (name,) = below(tmp_path / "out")
    with Image.open(tmp_path / "out" / name) as found:
        assert found.info["icc_profile"] == PROFILE
        kept = found.getexif()
        assert kept[0x013B] == "Ann Artist"
        assert kept.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        # as stored, with the tag that turns them; a TIFF comes upright from its decoders
        assert (found.size, kept.get(0x0112)) == (((8, 12), None) if suffix == ".tif" else ((12, 8), 6))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay_sixteen(suffix: str, channels: int, checkpoint: Path, tmp_path: Path) -> None:
    given = drawn(9, 11, channels, kind=np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), given)
    assert run(checkpoint, tmp_path / "out", tmp_path / f"a{suffix}") == 0
    found = cv2.imread(str(tmp_path / "out" / f"a{suffix}"), cv2.IMREAD_UNCHANGED).reshape(9, 11, -1)
    assert (found.dtype, found.shape) == (np.uint16, given.shape)
    rgb = np.repeat(given, 3, axis=2) if channels == 1 else given[..., 2::-1]
    restored = dynet.load(checkpoint, device="cpu").restore(np.ascontiguousarray(rgb), SHALLOW)
    if channels > 1:
        assert np.array_equal(found[..., 2::-1], restored)
    if channels == 4:
        assert np.array_equal(found[..., 3], given[..., 3])


@pytest.mark.parametrize(
    ("suffix", "channels"),
    # Pillow reads no alpha of the BMPs that it writes
    [
        *((suffix, channels) for suffix in (".png", ".tif", ".webp") for channels in (1, 2, 3, 4)),
        (".bmp", 1),
        (".bmp", 3),
    ],
)
def test_grey_stays_grey_and_alpha_as_it_is(suffix: str, channels: int, checkpoint: Path, tmp_path: Path) -> None:
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    given = drawn(8, 8, channels)
    samples = given[..., 0] if channels == 1 else given
    if channels == 2 and suffix == ".webp":
        samples = given[..., [0, 0, 0, 1]]
    path = saved(tmp_path / f"a{suffix}", samples, **options)
    assert run(checkpoint, tmp_path / "out", path) == 0
    found = opened((tmp_path / "out" / f"a{suffix}").read_bytes())
    assert found.grey == (channels < 3 and suffix != ".webp")
    assert (found.alpha is not None) == (channels in (2, 4))
    if found.alpha is not None:
        assert np.array_equal(found.alpha, given[..., -1])


def test_palettes_and_their_transparency_become_colours(checkpoint: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(drawn(8, 8, 3)).quantize(16)
    picture.save(tmp_path / "a.png", transparency=3)
    assert run(checkpoint, tmp_path / "out", tmp_path / "a.png") == 0
    with Image.open(tmp_path / "out" / "a.png") as found:
        assert found.mode == "RGBA"
        assert np.array_equal(np.asarray(found)[..., 3] == 0, np.asarray(picture) == 3)


def test_another_form_is_written_where_asked(checkpoint: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", drawn(8, 8, 3))
    for word, name in (("jpeg", "a.jpg"), ("tiff", "a.tif"), ("webp", "a.webp")):
        assert run(checkpoint, tmp_path / word, path, "--format", word) == 0
        assert below(tmp_path / word) == [name]


# ---------------------------------------------------------------- depth and tiles


def test_the_deepest_that_fits_is_taken(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.png", drawn(16, 16, 3))
    assert run(checkpoint, tmp_path / "out", path, "--budget-ms", "60000", depth="auto") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("time: ")]
    assert [line.split()[0] for line in lines[:6]] == ["depth", "S", "2,4,4,5", "3,4,4,6", "4,5,5,7", "L"]
    assert "restored at depth L" in lines[-1]


def test_a_time_too_short_is_said_before_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "a.png", drawn(16, 16, 3))
    words = [path, "--out", tmp_path / "out", "--checkpoint", checkpoint, "--depth", "auto", "--budget-ms", "0.001"]
    assert "the fastest, S, takes" in refused(words, capsys)
    assert not (tmp_path / "out").exists()


def test_tiles_of_a_size_or_of_what_memory_allows(checkpoint: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", drawn(70, 50, 3))
    for word in ("auto", "0", "32"):
        assert run(checkpoint, tmp_path / word, path, "--tile", word) == 0
    whole, same, tiled = (np.asarray(Image.open(tmp_path / word / "a.png"), int) for word in ("0", "auto", "32"))
    assert np.array_equal(whole, same)
    assert 0 < np.abs(whole - tiled).mean() < 10


# ---------------------------------------------------------------- what can't be


def test_a_depth_that_the_network_doesnt_have_is_said_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(width=8, refinement=0, unshared=(1, 1, 1, 1))
    torch.save(weights.written(config, DyNet(config).state_dict()), tmp_path / "other.pt")
    path = saved(tmp_path / "a.png", drawn(8, 8, 3))
    words = [path, "--out", tmp_path / "out", "--checkpoint", tmp_path / "other.pt", "--depth", "S"]
    assert "aren't shared" in refused(words, capsys)


def test_alpha_has_no_place_in_jpeg(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.png", drawn(8, 8, 4))
    assert run(checkpoint, tmp_path / "out", path, "--format", "jpeg") == 2
    assert "a.png: it has an alpha channel" in capsys.readouterr().err


def test_a_picture_that_cant_be_read_is_named_and_the_rest_goes_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "in" / "a.png", drawn(8, 8, 3))
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:100])
    (tmp_path / "in" / "c.jpg").write_text("no picture")
    saved(tmp_path / "in" / "d.png", drawn(8, 8, 3))
    assert run(checkpoint, tmp_path / "out", tmp_path / "in") == 2
    said = capsys.readouterr()
    assert "2 of 4 pictures restored" in said.out
    assert "b.png: " in said.err and "c.jpg: " in said.err
    assert said.err.splitlines()[-1] == "dynet-restore: 2 of 4 pictures could not be restored, named above"
    assert below(tmp_path / "out") == ["a.png", "d.png"]


def test_no_bad_file_of_the_world_ends_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of at most 300 KB: bombs, films, web pages, cut and damaged files, CMYK, palettes, odd profiles."""
    folder = SHARED / "data" / "bad"
    if not folder.is_dir():
        pytest.skip("needs the real bad files in ../shared")
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix != ".tsv"]
    small = [path for path in pictures if path.stat().st_size < 300_000 and not _large(path)]
    (tmp_path / "in").mkdir()
    for path in small:
        shutil.copy(path, tmp_path / "in")
    assert run(checkpoint, tmp_path / "out", *(tmp_path / "in" / path.name for path in small)) == 2
    said = capsys.readouterr()
    failed = {line.strip().partition(": ")[0].rpartition("/")[2] for line in said.err.splitlines()[:-1]}
    kinds = ("anim", "aspect", "bomb", "corrupt", "empty", "html", "lfs", "svg", "truncated")  # aspect: a film too
    assert failed == {path.name for path in small if path.name.startswith(kinds)}
    assert len(below(tmp_path / "out")) == len(small) - len(failed) > 8


def _large(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return 100_000 < image.width * image.height < 1 << 27
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{in}/none.png"], "none.png: no such file or folder"),
        (["{in}/*.jpg"], "has no pictures"),
        (["{empty}"], "has no pictures"),
        (["{in}", "--depth", "XL"], "depth 'XL'"),
        (["{in}", "--tile", "33"], "multiple of 8"),
        (["{in}", "--tile", "big"], "--tile big"),
        (["{in}", "--depth", "auto"], "--budget-ms"),
        (["{in}", "--budget-ms", "5"], "--depth auto"),
        (["{in}", "--checkpoint", "{in}/a.png"], "no checkpoint"),
        (["{in}", "--checkpoint", "{in}/none.pt"], "none.pt can't be read"),
        (["{in}", "--out", "{in}"], "originals"),
        (["{in}/a.png", "--out", "{in}"], "originals"),
        (["{in}/a.png", "{other}/a.png"], "would both become"),
        (["{in}/a.png", "--out", "{in}/a.png"], "is a file"),
    ],
)
def test_one_sentence(
    words: list[str], said: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {name: tmp_path / name for name in ("in", "empty", "other")}
    folders["empty"].mkdir()
    saved(folders["in"] / "a.png", drawn(8, 8, 3))
    saved(folders["other"] / "a.png", drawn(8, 8, 3))
    given = [word.format(**folders) for word in words]
    needed = {"--out": tmp_path / "out", "--checkpoint": checkpoint}
    extra = [part for flag, value in needed.items() if flag not in given for part in (flag, value)]
    assert said in refused([*given, *extra], capsys)
    assert below(folders["in"]) == ["a.png"] and not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = saved(tmp_path / "a.png", drawn(20, 20, 3))
    said = refused([given, "--out", tmp_path / "out", "--checkpoint", checkpoint, "--device", "cuda"], capsys)
    assert said == "dynet-restore: no GPU here: give --device cpu"
    assert not (tmp_path / "out").exists()
