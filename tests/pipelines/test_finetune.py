"""Fine-tuning from end to end on small pictures: the loop of pre-training, fed from folders, from a set, from both."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dynet import checkpoint, curve
from dynet.folders import DE_TYPES, DataError
from dynet.loop import Every
from dynet.model import DyNet, ModelConfig
from dynet.progress import Progress
from dynet.train import Settings
from pipelines import finetune_recipes, recipe_files
from pipelines.finetune import FinetuneJob, finetune
from pipelines.finetune_recipes import FinetuneRecipe, Repeats
from shards.store import LocalStore
from tests.dynet.pair_folders import picture, save, write_folders
from tests.sets import write_set
from tests.states import digest

RECIPE = FinetuneRecipe(
    epochs=2,  # of 31 pairs, so 16 steps
    warmup_epochs=0.5,
    cosine_epochs=2.5,
    settings=Settings(steps=1, lr=1e-3, optimizer="adamw", weight_decay=0.01, depths=("1,1,1,1", "1,2,2,2"), ema=0.9),
    model=ModelConfig(width=8, refinement=1),
    every=Every(checkpoint=5, keep=2, validate=8, pictures=8, report=4),
    repeats=Repeats(denoise=1, derain=4, dehaze=1),
    batch=4,
    crop=16,
    valid=6,
)
STEPS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("data") / "Train")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, [20, 13], size=32)
    return store


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny networks are slower on several threads, and many times so beside other work."""
    torch.set_num_threads(1)


def job(data: Path | None, out: Path, **changes: Any) -> FinetuneJob:
    return FinetuneJob(**{"out": LocalStore(out), "recipe": RECIPE, "data": data, "workers": 0} | changes)


def silent(*_: object) -> None:
    pass


def left(out: Path) -> dict[str, bytes | str]:
    """All that a run decides: the checkpoints that are kept, to the bit, the curve, the pictures."""
    store = LocalStore(out)
    made: dict[str, bytes | str] = {
        name: store.read(name) for part in ("curve/", "pictures/") for name in store.list(part)
    }
    return made | {checkpoint.name_of(step): digest(checkpoint.load(store, step)) for step in checkpoint.steps(store)}


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that nothing stopped."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("undisturbed")
    told: list[Progress] = []
    ended = finetune(job(data, out, valid=data), silent, told.append)
    assert ended.step == STEPS and set(ended.qualities) == {"input", "1,1,1,1", "1,2,2,2"}
    return out


def test_a_run_leaves_what_pre_training_leaves(undisturbed: Path) -> None:
    assert curve.read(LocalStore(undisturbed))["step"].to_pylist() == list(range(1, STEPS + 1))
    assert checkpoint.steps(LocalStore(undisturbed)) == [15, 16]
    assert len(list(undisturbed.glob("pictures/*.png"))) == 2
    told = json.loads((undisturbed / "recipe.json").read_text())
    assert recipe_files.made(FinetuneRecipe, told) == RECIPE


@pytest.mark.parametrize("stop", [4, 12])
def test_a_stopped_run_leaves_the_same_to_the_bit(data: Path, undisturbed: Path, tmp_path: Path, stop: int) -> None:
    """Before the first checkpoint, and behind the first epoch."""

    def stopping(now: Progress) -> None:
        if now.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(job(data, tmp_path, valid=data), silent, stopping)
    assert finetune(job(data, tmp_path, valid=data, workers=1), silent, silent).step == STEPS
    assert left(tmp_path) == left(undisturbed)


@pytest.mark.slow
def test_two_ranks_have_the_batches_of_one(data: Path, undisturbed: Path, tmp_path: Path, local_ray: None) -> None:
    finetune(job(data, tmp_path, ranks=2), silent, silent)
    one, two = curve.read(LocalStore(undisturbed)), curve.read(LocalStore(tmp_path))
    for column in ("step", "depth", "samples", "taken"):
        assert one[column] == two[column]
    assert two["loss"].to_pylist() == pytest.approx(one["loss"].to_pylist(), rel=1e-3)


def test_it_begins_with_the_weights_that_it_is_given(data: Path, tmp_path: Path) -> None:
    weights = DyNet(RECIPE.model).state_dict()
    still = dataclasses.replace(RECIPE.settings, lr=1e-12, weight_decay=0.0, ema=0.0)
    recipe = dataclasses.replace(RECIPE, epochs=0.1, settings=still)
    finetune(job(data, tmp_path, recipe=recipe, weights=weights), silent, silent)
    state = checkpoint.newest(LocalStore(tmp_path))
    assert state is not None
    for name, value in state["trainer"]["model"].items():
        assert torch.allclose(value, weights[name], atol=1e-8)


def test_the_rate_climbs_and_then_falls_along_a_cosine() -> None:
    settings = finetune_recipes.released().settled(pairs=3200)  # 100 steps an epoch
    assert (settings.steps, settings.warmup, settings.cosine) == (12_000, 1_500, 15_000)
    rates = [settings.lr_at(step) for step in range(settings.steps)]
    assert rates[0] == pytest.approx(2e-4 / 1500) and max(rates) == rates[1500] == 2e-4
    assert rates[8250] == pytest.approx(1e-4)  # half of the way from 1500 to 15,000
    assert all(a < b for a, b in itertools.pairwise(rates[:1500]))
    assert all(a > b for a, b in itertools.pairwise(rates[1500:]))
    assert rates[-1] == pytest.approx(2e-4 * (1 + math.cos(math.pi * 105 / 135)) / 2, rel=1e-3)  # at epoch 120 of 150
    assert settings.lr_at(15_000) == settings.lr_at(20_000) == 0


def test_clean_patches_of_a_set_are_made_noisy(made: LocalStore, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, de_types=("denoise_15", "denoise_50"), epochs=1)
    ended = finetune(job(None, tmp_path, recipe=recipe, shards=made.root), silent, silent)
    assert ended.step == 8  # 33 patches
    assert LocalStore(tmp_path).exists(checkpoint.name_of(8))


def test_a_set_and_folders_share_each_batch(data: Path, made: LocalStore, tmp_path: Path) -> None:
    """Stopped and gone on with: the same as a run that was not."""
    recipe = dataclasses.replace(RECIPE, denoise_share=0.5, epochs=1)

    def stopping(now: Progress) -> None:
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(job(data, tmp_path / "a", recipe=recipe, shards=made.root), silent, stopping)
    finetune(job(data, tmp_path / "a", recipe=recipe, shards=made.root), silent, silent)
    finetune(job(data, tmp_path / "b", recipe=recipe, shards=made.root), silent, silent)
    assert left(tmp_path / "a") == left(tmp_path / "b")
    assert len(curve.read(LocalStore(tmp_path / "a"))) == 8  # 16 pairs from folders, two a step


def test_pairs_that_do_not_match_are_named_before_anything_is_written(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "Train")
    save(picture(1, 40, 60), data / "Derain/gt/norain-0.png")
    (data / "Denoise/00001.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"00001\.png can't be read.*rain-0\.png: 56 x 40 pixels, .*norain-0\.png has 60"
    ):
        finetune(job(data, tmp_path / "out"), silent, silent)
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_its_own_recipe_alone(data: Path, undisturbed: Path) -> None:
    looked: list[int] = []
    recipe = dataclasses.replace(RECIPE, repeats=Repeats(denoise=2, derain=4, dehaze=1))
    with pytest.raises(ValueError, match=r"was begun with repeats\.denoise = 1, now it is 2"):
        finetune(job(data, undisturbed, recipe=recipe), lambda _total, done: looked.append(done), silent)
    assert not looked  # no picture was read for it


@pytest.mark.parametrize(("ranks", "said"), [(2, "give denoise_share=0.25"), (16, "give a larger batch")])
def test_a_share_that_cannot_be_split_is_refused_with_one_that_can(
    data: Path, made: LocalStore, tmp_path: Path, ranks: int, said: str
) -> None:
    recipe = dataclasses.replace(RECIPE, batch=16, denoise_share=1 / 3)
    with pytest.raises(ValueError, match=f"5 of a batch of 16 come from the set, .*{said}"):
        finetune(job(data, tmp_path, recipe=recipe, shards=made.root, ranks=ranks), silent, silent)


def test_the_order_of_tasks_does_not_make_another_run() -> None:
    one, other = (dataclasses.replace(RECIPE, de_types=some) for some in (("dehaze", "derain"), ("derain", "dehaze")))
    assert one == other and one.fixed == other.fixed


def test_the_released_recipe_is_the_released_code_s() -> None:
    recipe = finetune_recipes.released()
    assert (recipe.epochs, recipe.warmup_epochs, recipe.cosine_epochs, recipe.crop) == (120, 15, 150, 128)
    assert (recipe.settings.optimizer, recipe.settings.lr, recipe.settings.weight_decay) == ("adamw", 2e-4, 0.01)
    assert [recipe.repeats.of(one) for one in DE_TYPES] == [3, 3, 3, 120, 1]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ('de_types=["deblur"]', "give some of denoise_15"),
        ("de_types=[]", "give some of"),
        ("epochs=0", "epochs must be above 0"),
        ("cosine_epochs=3", "cosine_epochs above warmup_epochs"),
        ("denoise_share=1.0", "between 0 and 1"),
        ("repeats.derain=0", "repeats: give at least 1"),
        ("settings.optimizer=sgd", "give adam or adamw"),
        ("settings.weight_decay=-1", "weight_decay"),
        ("batch=0", "can't be cut"),
        ("crop=4", "crop 4"),
    ],
)
def test_a_value_that_cannot_be_is_refused(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_files.changed(finetune_recipes.released(), [word])
