"""`dynet-finetune` as a user gives it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dynet import weights
from dynet.model import DyNet, ModelConfig
from jobs.finetune import main
from pipelines import finetune_recipes
from pipelines.finetune import FinetuneJob
from shards.store import LocalStore
from tests.dynet.pair_folders import write_folders
from tests.sets import write_set

TINY = ["--set", "model.width=8", "--set", "model.refinement=1", "--device", "cpu", "--workers", "0"]
QUICK = [*TINY, "--depth", "1,1,1,1", "--epochs", "0.5", "--batch_size", "4", "--patch_size", "16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("cli") / "Train")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_run_says_what_it_did_and_its_checkpoint_begins_another(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(data), *QUICK]
    assert main([*words, "--out", str(tmp_path / "a"), "--lr", "1e-3", "--de_type", "denoise_25", "dehaze"]) == 0
    said = capsys.readouterr().out
    assert (
        "check: 11/11 pictures" in said and "2 steps in" in said and "checkpoint: " in said
    )  # 15 + 4 pairs of 5 + 4 + 2 files
    recipe = json.loads((tmp_path / "a/recipe.json").read_text())
    assert (recipe["settings"]["lr"], recipe["de_types"]) == (1e-3, ["denoise_25", "dehaze"])
    found = tmp_path / "a/checkpoints/step-000000002.pt"
    assert weights.read(found)[0] == ModelConfig(width=8, refinement=1)
    again = [*words, "--out", str(tmp_path / "b"), "--de_type", "dehaze", "--weights", str(found)]
    assert main(again) == 0
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "none of them" in said and "has a checkpoint after step" in said


def test_promptir_is_trained_likewise(data: Path, tmp_path: Path) -> None:
    words = ["--data", str(data), "--out", str(tmp_path), "--net", "promptir", "--de_type", "dehaze", "--epochs", "0.2"]
    words += [*TINY, "--batch_size", "2", "--patch_size", "16"]
    assert main(words) == 0
    config, _ = weights.read(next(tmp_path.glob("checkpoints/*.pt")))
    assert (config.prompts, config.unshared) == ("decoder", (4, 6, 6, 8))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--de_type", "deblur"], "give some of denoise_15, denoise_25, denoise_50, derain, dehaze"),
        (["--data", "/nowhere"], "/nowhere/Denoise is no folder: --data and --valid name"),
        (["--lists", "/nowhere"], "has no noisy/denoise_airnet.txt or noisy/denoise.txt"),
        (["--weights", "/nowhere.pt"], "/nowhere.pt can't be read"),
        (["--patch_size", "4096"], "less than a crop of 4096"),
        (["--lr", "7"], "lr is 7.0: give a number between 0 and 1"),
        (["--set", "lr=2"], "the recipe has no field lr: it has"),
        (["--depth", "M"], "depth 'M': write"),
        (["--recipe", "none.json"], "no recipe none.json: give released, demo"),
        (["--ranks", "3"], "a batch of 4 can't be split over 3 ranks"),
        (["--shards", "/nowhere/set"], "/nowhere/set"),
        (
            ["--shards", "/nowhere/set", "--de_type", "derain"],
            "--shards has clean patches for denoising, and --de_type",
        ),
        (["--set", "settings.steps=77"], "settings.steps, .warmup and .cosine follow from the pairs: give epochs"),
        (["--set", "settings.cosine=77"], "settings.steps, .warmup and .cosine follow from the pairs: give epochs"),
        (["--epochs", "151"], "the rate is 0 from epoch 150 on: give cosine_epochs of 151"),
        (["--net", "promptir"], "have one depth: give settings.depths"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    out = tmp_path / "run"
    assert main(["--data", str(data), "--out", str(out), *QUICK, *words]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("dynet-finetune: ") and said in told and "\n" not in told
    assert not out.exists()


def test_without_data_the_remedy_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "run"), *QUICK]) == 2
    assert "--data names the folder with the pictures of denoise_15, " in capsys.readouterr().err


def test_another_network_s_weights_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"trainer": {"model": DyNet(ModelConfig(width=16)).state_dict(), "average": None}, "config": {"width": 16}}
    torch.save(other, tmp_path / "other.pt")
    words = ["--data", str(data), "--out", str(tmp_path / "run"), *QUICK, "--weights", str(tmp_path / "other.pt")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "other.pt is of another network: to begin with it give --set model.width=16 --set model.refinement=4" in said


def test_relative_folders_are_taken_from_here(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's ranks run in folders of their own."""
    monkeypatch.chdir(data.parent)
    out, recipe = LocalStore(tmp_path), finetune_recipes.demo()
    job = FinetuneJob(out=out, recipe=recipe, data=Path("Train"), valid=Path("Train"), shards="set")
    assert (job.data, job.valid, job.shards) == (data, data, str(data.parent / "set"))


def test_a_set_whose_patches_are_smaller_than_the_crop_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(LocalStore(tmp_path / "set"), [20], size=32)
    words = ["--shards", str(tmp_path / "set"), "--out", str(tmp_path / "run"), *QUICK, "--patch_size", "48"]
    assert main([*words, "--de_type", "denoise_15"]) == 2
    assert "crop is 48: the patches have 32 pixels a side" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
