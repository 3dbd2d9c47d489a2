"""The protocol from files to figures: the released code's numbers, noise that has a name, and what is written."""

from __future__ import annotations

import csv
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import dynet
from dynet import testsets
from dynet.noise import noise_of, noisy
from dynet.published import TABLES
from dynet.restore import Restorer
from dynet.results import Row
from dynet.testsets import Entry, PictureSet
from dynet.validate import quality
from pipelines.evaluate import EvaluateJob, check, evaluate, pair
from tests.evaluation import checkpoint, layout, put, rainy, waves

TASKS = ("denoise", "derain", "dehaze")
RAINY = (18.156321, 0.414161)
NOISY = 20.264878


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    torch.set_num_threads(1)
    return dynet.load(checkpoint(tmp_path_factory.mktemp("weights") / "narrow.pt"), device="cpu")


def sets(root: Path, mode: int = 3, sigmas: tuple[float, ...] = (25.0,)) -> tuple[PictureSet, ...]:
    return testsets.released(mode, {task: root / task for task in TASKS}, sigmas)


def run(job: EvaluateJob, restorer: Restorer, out: Path) -> list[Row]:
    out.mkdir(exist_ok=True)
    return evaluate(job, restorer, out, lambda total, done, note: None)


def job(*given: PictureSet, depths: tuple[str, ...] = ("S",), **more: Any) -> EvaluateJob:
    return EvaluateJob(sets=given, depths=depths, published=TABLES[3], **more)


def figures(rows: list[Row]) -> dict[tuple[str, str, str], tuple[float, float]]:
    return {(str(r.column), r.picture, r.depth): (r.quality.psnr, r.quality.ssim) for r in rows}


# ---------------------------------------------------------------- the protocol


def test_figures_are_those_of_scikit_image_on_what_was_written_down() -> None:
    """Computed once with scikit-image 0.26 on these pictures, and with it again here."""
    clean = waves(3, 48, 64)
    spoilt = rainy(clean)
    found = quality(spoilt, clean)
    assert found.psnr == pytest.approx(RAINY[0], abs=1e-4)
    assert found.ssim == pytest.approx(RAINY[1], abs=1e-4)
    one, other = clean / 255, spoilt / 255
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(one, other, data_range=1), abs=1e-6)
    assert found.ssim == pytest.approx(structural_similarity(one, other, data_range=1, channel_axis=2), abs=1e-6)


def test_noise_is_a_function_of_seed_name_and_sigma(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / f"{name}.png", waves(0))
    one, other = (Entry(name=name, target=tmp_path / f"{name}.png") for name in ("a", "b"))
    target, degraded = pair(one, 25, seed=0)
    assert np.array_equal(degraded, noisy(target, 25, noise_of(0, "a", 25)))
    assert np.array_equal(degraded, pair(one, 25, seed=0)[1])
    changed = [pair(other, 25, seed=0)[1], pair(one, 50, seed=0)[1], pair(one, 25, seed=1)[1]]
    assert not any(np.array_equal(degraded, another) for another in changed)
    assert quality(degraded, target).psnr == pytest.approx(NOISY, abs=1e-4)


def test_the_order_of_the_files_and_what_else_is_there_changes_nothing(tmp_path: Path, restorer: Restorer) -> None:
    (whole,) = sets(layout(tmp_path / "data", count=3), mode=0)
    backwards = PictureSet(name="BSD68", entries=whole.entries[::-1], sigmas=(50.0, 25.0))
    alone = PictureSet(name="BSD68", entries=whole.entries[1:2], sigmas=(25.0,))
    given = figures(run(job(whole), restorer, tmp_path / "1"))
    assert given.items() <= figures(run(job(backwards), restorer, tmp_path / "2")).items()
    assert figures(run(job(alone), restorer, tmp_path / "3")).items() <= given.items()


def test_a_picture_is_measured_before_it_is_rounded(tmp_path: Path, restorer: Restorer) -> None:
    (rain,) = sets(layout(tmp_path / "data", count=1), mode=1)
    (row,) = run(job(rain), restorer, tmp_path / "out")
    target, degraded = pair(rain.entries[0], None, seed=0)
    restored = restorer.floats(degraded.astype(np.float32) / 255, "S")
    assert row.quality == quality(restored.clip(0, 1), target)
    assert row.before == quality(degraded, target)
    written = np.asarray(Image.open(tmp_path / "out" / "restored" / "Rain100L" / "S" / "rain-000.png"))
    assert np.array_equal(written, np.rint(255 * restored.clip(0, 1)))
    assert quality(written, target) != row.quality


def test_a_picture_too_large_for_the_memory_is_said_with_the_tile_that_fits(
    tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rain,) = sets(layout(tmp_path), mode=1)
    check(job(rain), restorer, lambda total, done: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3_000_000))
    with pytest.raises(ValueError, match="69 x 50 pixels may not fit into the memory that is free: give --tile 40"):
        check(job(rain), restorer, lambda total, done: None)
    check(job(rain, tile=40), restorer, lambda total, done: None)


def test_in_tiles_it_is_the_restorers_tiles_that_are_measured(tmp_path: Path, restorer: Restorer) -> None:
    (rain,) = sets(layout(tmp_path / "data", count=1), mode=1)
    (row,) = run(job(rain, tile=40), restorer, tmp_path / "out")
    target, degraded = pair(rain.entries[0], None, seed=0)
    assert row.quality == quality(restorer.floats(degraded.astype(np.float32) / 255, "S", 40).clip(0, 1), target)


# ---------------------------------------------------------------- beside the released code


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The data sets and figures of a clone that an environment variable names."""
    if "MILLION_IRD_DYNET" not in os.environ:
        pytest.skip("needs a clone of the released code: set MILLION_IRD_DYNET to its folder")
    monkeypatch.syspath_prepend(os.environ["MILLION_IRD_DYNET"])
    video = ModuleType("skvideo.measure")  # imported there for NIQE, which is not called here
    video.niqe = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skvideo", ModuleType("skvideo"))
    monkeypatch.setitem(sys.modules, "skvideo.measure", video)
    data, figures = (importlib.import_module(f"utils.{name}") for name in ("dataset_utils", "val_utils"))
    yield SimpleNamespace(data=data, figures=figures)
    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        del sys.modules[name]


def paths(root: Path) -> SimpleNamespace:
    given = {"derain": root / "derain" / "Rain100L", "dehaze": root / "dehaze", "denoise": root / "denoise" / "bsd68"}
    return SimpleNamespace(**{f"{task}_path": f"{path}/" for task, path in given.items()})


def released_means(theirs: SimpleNamespace, dataset: Any, restorer: Restorer, depth: str) -> tuple[float, float]:
    """The loop of the released test.py, on the CPU."""
    psnr, ssim = theirs.figures.AverageMeter(), theirs.figures.AverageMeter()
    with torch.no_grad():
        for _, degraded, clean in (dataset[at] for at in range(len(dataset))):
            found = theirs.figures.compute_psnr_ssim(restorer.model(degraded[None], depth), clean[None])
            psnr.update(found[0], found[2])
            ssim.update(found[1], found[2])
    return psnr.avg, ssim.avg


@pytest.mark.parametrize("depth", ["S", "L"])
@pytest.mark.parametrize(("mode", "task"), [(1, "derain"), (2, "dehaze")])
def test_pairs_have_the_released_codes_figures(
    mode: int, task: str, depth: str, theirs: SimpleNamespace, restorer: Restorer, tmp_path: Path
) -> None:
    root = layout(tmp_path / "data", count=3)
    rows = run(job(*sets(root, mode), depths=(depth,)), restorer, tmp_path / "out")
    psnr, ssim = released_means(theirs, theirs.data.DerainDehazeDataset(paths(root), task=task), restorer, depth)
    assert np.mean([row.quality.psnr for row in rows]) == pytest.approx(psnr, abs=1e-4)
    assert np.mean([row.quality.ssim for row in rows]) == pytest.approx(ssim, abs=1e-4)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_is_added_as_the_released_code_does(
    sigma: int, theirs: SimpleNamespace, restorer: Restorer, tmp_path: Path
) -> None:
    """The same draws in both: theirs are of NumPy's global generator."""
    dataset = theirs.data.DenoiseTestDataset(paths(layout(tmp_path, count=1)))
    dataset.set_sigma(sigma)
    np.random.seed(7)
    _, degraded, clean = dataset[0]
    target, _ = pair(sets(tmp_path, 0)[0].entries[0], sigma, seed=0)
    ours = noisy(target, sigma, np.random.RandomState(7))  # type: ignore[arg-type]  # the old kind, as theirs
    assert np.array_equal(target, 255 * clean.permute(1, 2, 0).numpy())
    assert np.array_equal(ours.astype(np.float32) / 255, degraded.permute(1, 2, 0).numpy())
    with torch.no_grad():
        psnr, ssim, _ = theirs.figures.compute_psnr_ssim(restorer.model(degraded[None], "S"), clean[None])
    found = quality(restorer.floats(ours.astype(np.float32) / 255, "S").clip(0, 1), target)
    assert (found.psnr, found.ssim) == pytest.approx((psnr, ssim), abs=1e-4)


# ---------------------------------------------------------------- what is written


def test_everything_lies_where_it_is_said_to(tmp_path: Path, restorer: Restorer) -> None:
    rows = run(job(*sets(layout(tmp_path / "data")), depths=("S", "1,1,1,1")), restorer, tmp_path / "out")
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {
        *("index.html", "table.md", "table.csv", "pictures.csv"),
        *(f"restored/SOTS/{depth}/{n:04}_0.8_0.2.png" for depth in ("S", "1,1,1,1") for n in (0, 1)),
        *(f"restored/Rain100L/{depth}/rain-{n:03}.png" for depth in ("S", "1,1,1,1") for n in (0, 1)),
        *(f"restored/BSD68/25/{depth}/{n:03}.png" for depth in ("S", "1,1,1,1") for n in (0, 1)),
    }
    lines = list(csv.DictReader((tmp_path / "out" / "pictures.csv").open()))
    assert [float(line["psnr"]) for line in lines] == pytest.approx([row.quality.psnr for row in rows], abs=1e-6)


@pytest.mark.parametrize(
    "name", ["~.png", "-rf.png", "a&<b>.png", "x...png", "%2e%2e%2fa.png", "\udcff.png", "n\nl.png"]
)
def test_a_hostile_name_stays_inside(name: str, tmp_path: Path, restorer: Restorer) -> None:
    put(tmp_path / "data" / "a.png", waves(0)).rename(tmp_path / "data" / name)
    given = testsets.found("any", tmp_path / "data", (25.0,))
    run(job(given, depths=("1,1,1,1",)), restorer, tmp_path / "out")
    written = list((tmp_path / "out" / "restored").rglob("*.png"))
    assert [path.parent for path in written] == [tmp_path / "out" / "restored" / "any" / "25" / "1,1,1,1"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b", "/etc", "x" * 65, "."])
def test_a_set_is_called_what_a_folder_can_be(name: str) -> None:
    with pytest.raises(ValueError, match="a set can't be called"):
        job(PictureSet(name=name, entries=()))


def test_two_sets_are_not_one_column() -> None:
    with pytest.raises(ValueError, match="BSD68 and cbsd68 would be one column of the table"):
        job(PictureSet(name="BSD68", entries=()), PictureSet(name="cbsd68", entries=()))


def test_a_network_that_gives_no_numbers_is_named_with_the_picture(tmp_path: Path) -> None:
    broken = dynet.load(checkpoint(tmp_path / "narrow.pt"), device="cpu")
    next(broken.model.parameters()).data.fill_(torch.nan)
    (rain,) = sets(layout(tmp_path / "data", count=1), mode=1)
    with pytest.raises(ValueError, match="Rain100L, rain-000: the picture has values that are not finite"):
        run(job(rain), broken, tmp_path / "out")
