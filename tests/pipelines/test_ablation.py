"""The ablation: what it trains and tests on, what its table says, and the whole of it at the smallest scale."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curation.duplicates import perceptual_hash
from dynet import folders, rgb
from dynet.folders import DE_TYPES
from dynet.model import ModelConfig
from dynet.published import Column
from dynet.results import Row
from dynet.validate import Quality
from pipelines import ablation, ablation_table
from pipelines.ablation import WITH, WITHOUT, AblationJob, Arm
from shards.manifest import FOLDER, read_manifest
from shards.store import LocalStore
from tests.dynet.pair_folders import picture, save
from tests.sets import write_set


@pytest.fixture
def job(tmp_path: Path) -> AblationJob:
    store = LocalStore(tmp_path / "set")
    write_set(store, [9, 14, 12], size=32)
    tests = tmp_path / "tests"
    for folder, suffix in (
        ("cbsd68", ""),
        ("rain/heavy/input", ""),
        ("rain/heavy/target", ""),
        ("haze/a_b/hazy", "_1"),
    ):
        (tests / folder).mkdir(parents=True)
        for number in range(5):
            save(picture(number + 30, 33, 48), tests / folder / f"{number}{suffix}.png")
    (tests / "haze/a_b/gt").mkdir()
    for number in range(5):
        save(picture(number + 60, 33, 48), tests / f"haze/a_b/gt/{number}.png")
    (tests / "rain/real").mkdir()
    save(picture(1), tests / "rain/real/1.png")  # has no target
    return AblationJob(
        store=store.root,
        tests=tests,
        out=tmp_path / "out",
        minutes=0.01,
        model=ModelConfig(width=8, refinement=1),
        held_out=(0,),
        crop=16,
        batch=2,
        workers=0,
        seeds=1,
        pictures=2,
    )


def test_a_folder_that_holds_something_is_left_as_it_is(job: AblationJob) -> None:
    job.out.mkdir()
    (job.out / "thesis.txt").write_text("dear")
    with pytest.raises(ValueError, match="out holds something already: give another --out"):
        ablation.ablate(job, lambda *_: None)
    assert (job.out / "thesis.txt").read_text() == "dear"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_written(job: AblationJob) -> None:
    with pytest.raises(ValueError, match="no GPU here: give --device cpu"):
        ablation.ablate(replace(job, device="cuda"), lambda *_: None)
    assert not job.out.exists()


def test_of_each_test_set_a_few_pictures_are_chosen_evenly(job: AblationJob) -> None:
    found = ablation.find_sets(job.tests, most=3)
    assert {one.name: [entry.name for entry in one.entries] for one in found} == {
        "CBSD68": ["0", "2", "4"],
        "rain-heavy": ["0", "2", "4"],
        "haze-a-b": ["0_1", "2_1", "4_1"],
    }
    assert [one.sigmas for one in found] == [(15, 25, 50), (), ()]


def test_what_is_fine_tuned_on_is_what_was_kept_back(job: AblationJob, tmp_path: Path) -> None:
    assert ablation.write_pictures(job, tmp_path / "data") == 9
    found = folders.find(tmp_path / "data", DE_TYPES)
    assert len(found) == 5 * 9
    folders.check(found, 32, lambda total, done: None)


@pytest.mark.parametrize("column", ["sha256", "phash"])
def test_a_test_picture_that_is_in_the_set_ends_it_before_it_begins(job: AblationJob, column: str) -> None:
    """The same file, or one that looks the same."""
    ablation.check_unseen(job, ablation.find_sets(job.tests, most=5))
    seen = job.tests / "cbsd68/4.png"
    value = {
        "sha256": hashlib.sha256(seen.read_bytes()).hexdigest(),
        "phash": perceptual_hash(rgb.read(seen)),
    }[column]
    store = LocalStore(Path(job.store))
    name = FOLDER + read_manifest(store).metadata.name
    table = pq.read_table(io.BytesIO(store.read(name)))
    values = [value if row == 4 else old for row, old in enumerate(table[column].to_pylist())]
    sink = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values, pa.string())), sink)
    store.write(name, sink.getvalue())
    with pytest.raises(ValueError, match=r"cbsd68/4\.png is in the set too, from http://b\.example/4\.jpg"):
        ablation.ablate(job, lambda *_: None)
    assert not job.out.exists()


def rows(psnr: float) -> list[Row]:
    """Two columns: the second is 2 dB better."""
    before = Quality(psnr=10.0, ssim=0.1)
    return [
        Row(
            column=Column(set=name), picture="a", depth="S", quality=Quality(psnr=psnr + more, ssim=0.5),
            before=before, seconds=1.0,
        )
        for name, more in (("one", 0.0), ("two", 2.0))
    ]  # fmt: skip


def test_gains_are_told_seed_by_seed() -> None:
    found = {
        Arm(depth=depth, start=start, seed=seed): rows(20 + seed * 3 + gain * (start == WITH))
        for seed, gain in ((0, 1.0), (1, 2.0))
        for depth in ("S", "L")
        for start in (WITH, WITHOUT)
    }
    figures, gains = ablation_table.figures(found), ablation_table.gains(found)
    assert figures["S", WITHOUT]["one"].psnr == pytest.approx(21.5)
    assert figures["S", WITHOUT]["average"].psnr == pytest.approx(22.5)
    assert gains["L"]["two"].psnr == pytest.approx(1.5) and gains["L"]["two"].spread == pytest.approx(0.5)


@pytest.mark.slow
def test_the_whole_at_the_smallest_scale(job: AblationJob) -> None:
    torch.set_num_threads(1)
    stages: list[str] = []
    findings = ablation.ablate(job, lambda stage, *_: stages.append(stage))
    assert list(dict.fromkeys(stages)) == [
        "pre-training",
        *(f"{depth} {start}, seed 0" for depth in ("S", "L") for start in (WITHOUT, WITH)),
    ]
    assert (findings.pretraining, findings.finetuning, findings.trained_on) == (20, 20, 9)
    assert all(len(found) == 2 * 3 + 2 + 2 for found in findings.rows.values())
    text = ablation_table.markdown(findings)
    assert text.count("\n| ") == 1 + 4 + 2 and "| S gained | " in text
