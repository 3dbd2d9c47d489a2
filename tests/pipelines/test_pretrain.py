"""Pre-training from end to end on a small set: what a run leaves, and that no stop changes it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dynet import checkpoint, curve
from dynet.loop import Every
from dynet.model import ModelConfig
from dynet.progress import Progress
from dynet.train import Settings
from jobs.s3_proxy import S3Proxy, What
from pipelines import pretrain_recipes, recipe_files
from pipelines.pretrain import PretrainJob, pretrain
from pipelines.pretrain_recipes import PretrainRecipe
from shards.store import LocalStore, Store, open_store
from tests.conftest import S3Server
from tests.sets import write_set
from tests.states import digest

COUNTS = [29, 31, 17, 40]  # without the second: 86 samples, ten steps of 8 and a tail of 6
STEPS = 24
RECIPE = PretrainRecipe(
    settings=Settings(steps=STEPS, lr=1e-3, depths=("1,1,1,1", "1,2,2,2"), ema=0.9),
    model=ModelConfig(width=8, refinement=1),
    every=Every(checkpoint=5, keep=2, validate=10, pictures=10, report=4),
    batch=8,
    crop=16,
    window=40,
    held_out=(1,),
    valid=6,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, COUNTS, size=32)
    return store


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny networks are slower on several threads, and many times so beside other work."""
    torch.set_num_threads(1)


def job(made: LocalStore, out: Store | Path, **changes: Any) -> PretrainJob:
    store = LocalStore(out) if isinstance(out, Path) else out
    return PretrainJob(**{"store": made.root, "out": store, "recipe": RECIPE, "workers": 0} | changes)


def silent(_now: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def undisturbed(made: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """What a run leaves that nothing stopped."""
    torch.set_num_threads(1)
    out = LocalStore(tmp_path_factory.mktemp("undisturbed"))
    pretrain(job(made, out, board=f"{out.root}/tensorboard"), silent)
    return out


def left(out: Store) -> dict[str, bytes | str]:
    """All that a run decides: the checkpoints that are kept, to the bit, the curve, the pictures."""
    made: dict[str, bytes | str] = {name: out.read(name) for part in ("curve/", "pictures/") for name in out.list(part)}
    return made | {checkpoint.name_of(step): digest(checkpoint.load(out, step)) for step in checkpoint.steps(out)}


def test_a_run_leaves_what_one_wants_to_see(undisturbed: LocalStore) -> None:
    assert sorted(left(undisturbed)) == [
        "checkpoints/step-000000020.pt",
        "checkpoints/step-000000024.pt",
        "curve/000000001-000000005.parquet",
        "curve/000000006-000000010.parquet",
        "curve/000000011-000000015.parquet",
        "curve/000000016-000000020.parquet",
        "curve/000000021-000000024.parquet",
        "pictures/step-000000010.png",
        "pictures/step-000000020.png",
        "pictures/step-000000024.png",
    ]
    assert curve.read(undisturbed)["step"].to_pylist() == list(range(1, STEPS + 1))
    assert recipe_files.made(PretrainRecipe, json.loads(undisturbed.read("recipe.json"))) == RECIPE
    assert list(Path(undisturbed.root, "tensorboard").glob("events.out.tfevents.*"))


def test_a_checkpoint_tells_recipe_set_and_version(made: LocalStore, undisturbed: LocalStore) -> None:
    state = checkpoint.newest(undisturbed)
    assert state is not None
    assert state["about"]["settings.ema"] == 0.9
    assert ModelConfig.from_dict(state["config"]) == RECIPE.model
    assert state["stream"]["set"] == json.loads(made.read("shards/manifest.json"))["set"]
    assert state["stream"]["admitted"] == [[0, 1], [1, 1], [2, 1]]


def test_the_second_run_has_nothing_to_do(made: LocalStore, undisturbed: LocalStore) -> None:
    before = left(undisturbed)
    assert pretrain(job(made, undisturbed), silent).step == STEPS
    assert left(undisturbed) == before


@pytest.mark.parametrize("stop", [12, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (4, 20))])
def test_a_run_that_was_stopped_leaves_the_same_to_the_bit(
    made: LocalStore, undisturbed: LocalStore, tmp_path: Path, stop: int
) -> None:
    """Before the first checkpoint, after an epoch's end, and just at a checkpoint."""

    def stopping(now: Progress) -> None:
        if now.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(job(made, tmp_path), stopping)
    assert pretrain(job(made, tmp_path, workers=2), silent).step == STEPS
    assert left(LocalStore(tmp_path)) == left(undisturbed)


def test_a_curve_without_its_checkpoint_is_taken_away(
    made: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, before there was any checkpoint, and begun anew with another interval."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint, "save", killed)
        pretrain(job(made, tmp_path), silent)
    assert len(list(LocalStore(tmp_path).list("curve/"))) == 1
    settings = dataclasses.replace(RECIPE.settings, steps=4)
    pretrain(job(made, tmp_path, recipe=dataclasses.replace(RECIPE, settings=settings)), silent)
    assert curve.read(LocalStore(tmp_path))["step"].to_pylist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_over_s3_leaves_the_same(undisturbed: LocalStore, s3_server: S3Server) -> None:
    store = open_store(s3_server.bucket("pretrain") + "/set", s3_server.endpoint_url)
    write_set(store, COUNTS, size=32)
    out = open_store("s3://pretrain/run", s3_server.endpoint_url)
    pretrain(job(LocalStore(Path("/")), out, store=store.root, endpoint_url=s3_server.endpoint_url), silent)
    assert left(out) == left(undisturbed)


@pytest.mark.slow
def test_progress_tells_losses_pace_and_quality(made: LocalStore, tmp_path: Path) -> None:
    told: list[Progress] = []
    pretrain(job(made, tmp_path), told.append)
    assert [now.step for now in told] == [4, 8, 10, 12, 16, 20, 24]
    assert [now.step for now in told if now.qualities] == [10, 20, 24]
    last = told[-1]
    assert set(last.losses) == {"1,1,1,1", "1,2,2,2"}
    assert set(last.qualities) == {"input", "1,1,1,1", "1,2,2,2"}
    assert last.per_second > 0 and 0 <= last.waits < 1 and last.memory > 10**8 and last.skipped == 0
    assert 0 < told[0].seconds_left < 600


def test_depths_between_are_told_as_one(made: LocalStore, tmp_path: Path) -> None:
    settings = dataclasses.replace(RECIPE.settings, depths=("1,1,1,1", "2,2,2,2"), between=True, steps=20)
    last = pretrain(job(made, tmp_path, recipe=dataclasses.replace(RECIPE, settings=settings)), silent)
    assert "between" in last.losses and set(last.losses) <= {"1,1,1,1", "2,2,2,2", "between"}
    assert len(curve.by_depth(curve.read(LocalStore(tmp_path)))) > 3


def test_without_held_out_shards_all_are_trained_on(made: LocalStore, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, held_out=(), settings=dataclasses.replace(RECIPE.settings, steps=2))
    assert not pretrain(job(made, tmp_path, recipe=recipe), silent).qualities
    assert not list(LocalStore(tmp_path).list("pictures/"))


# ---------------------------------------------------------------- ranks


@pytest.mark.slow
def test_two_ranks_see_the_same_batches_and_go_on_for_one(
    made: LocalStore, undisturbed: LocalStore, tmp_path: Path, local_ray: None
) -> None:
    """A run on two ranks, stopped at step 10 and gone on with on one, has the batches of one that had one rank."""
    whole = curve.read(undisturbed)
    short = dataclasses.replace(RECIPE, settings=dataclasses.replace(RECIPE.settings, steps=10))
    two = pretrain(job(made, tmp_path, recipe=short, ranks=2), silent)
    assert two.step == 10 and set(two.qualities) == {"input", "1,1,1,1", "1,2,2,2"}
    pretrain(job(made, tmp_path), silent)
    points = curve.read(LocalStore(tmp_path))
    for column in ("step", "depth", "samples", "taken"):
        assert points[column] == whole[column]
    for column in ("loss", "norm"):
        assert points[column].to_pylist() == pytest.approx(whole[column].to_pylist(), rel=1e-3)


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_steps_and_nothing_else(made: LocalStore, tmp_path: Path, local_ray: None) -> None:
    killed: list[int] = []

    def kill() -> None:
        while not checkpoint.steps(LocalStore(tmp_path / "hurt")):
            time.sleep(0.01)
        killed.append(random.Random(1).choice(workers()).pid)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert pretrain(job(made, tmp_path / "hurt", ranks=2), silent).step == STEPS
    killer.join()
    assert killed
    pretrain(job(made, tmp_path / "whole", ranks=2), silent)
    assert left(LocalStore(tmp_path / "hurt")) == left(LocalStore(tmp_path / "whole"))


def workers() -> list[psutil.Process]:
    """The processes of the ranks in this test's Ray, and of no other."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if one.is_running() and "RayTrainWorker" in " ".join(one.cmdline())]


# ---------------------------------------------------------------- kills


@pytest.mark.slow
def test_a_run_killed_at_random_moments_leaves_the_same_to_the_bit(
    made: LocalStore, undisturbed: LocalStore, tmp_path: Path
) -> None:
    """SIGKILL, again and again, each time a little after the run has got further or at any earlier moment."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_files.plain(RECIPE)))
    out = LocalStore(tmp_path / "run")
    words = [sys.executable, "-m", "jobs.pretrain", made.root, "--out", out.root, "--recipe", str(recipe)]
    words += ["--workers", "1", "--device", "cpu"]
    draw, kills = random.Random(5), 0
    for _ in range(40):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        known = checkpoint.steps(out)
        deadline = time.monotonic() + draw.uniform(0.0, 3.0)
        while process.poll() is None and (checkpoint.steps(out) == known or time.monotonic() < deadline):
            time.sleep(draw.uniform(0.0, 0.05))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    assert left(out) == left(undisturbed)


@pytest.mark.slow
def test_a_run_that_gets_sigterm_ends_behind_its_step_and_leaves_the_same_to_the_bit(
    made: LocalStore, tmp_path: Path
) -> None:
    """To all its processes at once, as a scheduler does, at a random moment of each attempt."""
    settings = dataclasses.replace(RECIPE.settings, steps=120)
    every = Every(checkpoint=20, keep=2, validate=60, pictures=60, report=4)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(recipe_files.plain(dataclasses.replace(RECIPE, settings=settings, every=every))))
    words = [sys.executable, "-m", "jobs.pretrain", made.root, "--recipe", str(recipe), "--workers=2", "--device=cpu"]
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    assert ended([*words, "--out", calm.root], None) == (0, "")
    draw, stops = random.Random(8), []
    for _ in range(2):
        status, said = ended([*words, "--out", hurt.root], draw.uniform(0.0, 0.3))
        stops.append(checkpoint.steps(hurt)[-1])
        assert (status, said) == (
            143,
            f"dynet-pretrain: stopped after step {stops[-1]} of 120, which is saved."
            " The same command goes on from the newest checkpoint.\n",
        )
    assert stops == sorted({*stops})
    assert ended([*words, "--out", hurt.root], None) == (0, "")
    assert left(hurt) == left(calm)
    assert files(hurt) == files(calm)
    assert hurt.read("curve.png") == calm.read("curve.png")


@pytest.mark.slow
def test_a_run_that_waits_for_its_store_heeds_sigterm_and_leaves_the_same(
    made: LocalStore, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers slowly, and then so slowly that a sample would take a minute."""
    data = open_store(f"{s3_server.bucket('drips')}/set", s3_server.endpoint_url)
    for name in made.list(""):
        data.write(name, made.read(name))
    recipe = tmp_path / "recipe.json"
    every = dataclasses.replace(RECIPE.every, report=1)
    recipe.write_text(json.dumps(recipe_files.plain(dataclasses.replace(RECIPE, every=every))))
    words = [sys.executable, "-m", "jobs.pretrain", data.root, "--recipe", str(recipe), "--device=cpu", "--workers=1"]
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    with S3Proxy(s3_server.endpoint_url) as proxy:
        words += ["--endpoint-url", proxy.endpoint_url]
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("HOME", str(tmp_path / "one"))  # where the cache lies
        assert ended([*words, "--out", calm.root], None) == (0, "")
        monkeypatch.setenv("HOME", str(tmp_path / "another"))
        proxy.fail(What.DRIP, match="GET .*train-00000[23]", at=20, times=-1)
        with subprocess.Popen([*words, "--out", hurt.root], stdout=subprocess.PIPE, start_new_session=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline().startswith(b"pretrain: ")
            proxy.heal()
            proxy.fail(What.DRIP, match="GET .*train-00000[023]", at=1, times=-1)
            time.sleep(8)  # what was on its way has come
            os.killpg(running.pid, signal.SIGTERM)
            saved = time.monotonic() + 20
            while not checkpoint.steps(hurt) and time.monotonic() < saved:
                time.sleep(0.1)
            assert 0 < max(checkpoint.steps(hurt), default=0) < STEPS
            assert running.wait(timeout=120) == 143
        proxy.heal()
        assert ended([*words, "--out", hurt.root], None) == (0, "")
    assert left(hurt) == left(calm)


def ended(words: list[str], seconds: float | None) -> tuple[int, str]:
    """Status and stderr of a command that gets SIGTERM so long after its first line, and that leaves no process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, start_new_session=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("pretrain: ")
        if seconds is not None:
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return process.returncode, said


def files(out: LocalStore) -> list[str]:
    """What lies there, half-written files as well; TensorBoard begins one for each attempt."""
    found = (str(path.relative_to(out.folder)) for path in out.folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("tensorboard/"))


# ---------------------------------------------------------------- recipes


def test_the_paper_s_recipe_is_the_paper_s() -> None:
    recipe = pretrain_recipes.paper()
    told = (recipe.settings.steps, recipe.settings.lr, recipe.settings.betas, recipe.settings.depths)
    assert told == (1_000_000, 1e-4, (0.9, 0.999), ("S", "L"))
    assert (recipe.batch, recipe.crop, recipe.degradation.degraded, recipe.degradation.masked) == (32, 128, 0.5, 0.3)
    assert recipe.model == ModelConfig()


@pytest.mark.parametrize("name", sorted(pretrain_recipes.NAMED))
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    recipe = pretrain_recipes.read(name)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_files.plain(recipe)))
    assert pretrain_recipes.read(str(tmp_path / "recipe.json")) == recipe


def test_single_values_can_be_changed() -> None:
    words = [
        "batch=64",
        "settings.steps=2e6",
        "settings.lr=2e-4",
        'settings.depths=["S"]',
        "settings.precision=bf16",
        "held_out=[]",
    ]
    recipe = recipe_files.changed(pretrain_recipes.paper(), words)
    assert (recipe.batch, recipe.settings.lr, recipe.settings.depths) == (64, 2e-4, ("S",))
    assert (recipe.settings.precision, recipe.held_out, recipe.settings.steps) == ("bf16", (), 2_000_000)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("batch", "FIELD=VALUE"),
        ("bach=3", "no field bach: it has"),
        ("settings=3", "no field settings"),
        ("degradation.sigma=3", "no field degradation.sigma"),
        ("settings.lr=fast", "wrong kind"),
        ("settings.steps=0", "at least 1"),
        ('settings.depths=["M"]', "depth"),
        ("batch=-1", "batch"),
        ("every.keep=0", "every.keep"),
        ("valid=0", "valid"),
        ("settings.steps=1.5", "steps is 1.5, and not int"),
        ("settings.compile=maybe", "compile is 'maybe', and not bool"),
        ("settings.depths=L", "depths is 'L', and not tuple"),
        ('settings.depths=["S", [3, 4, 4, 6]]', "wrong kind"),
        ("settings.betas=0.9", "wrong kind"),
        ("settings.betas=[0.9, 1]", "betas"),
        ("settings.ema=Infinity", "wrong kind"),
        ("seed=x", "wrong kind"),
        ("held_out=0", "wrong kind"),
        ("model.prompts=everywhere", "wrong kind"),
        ("model.unshared=[4, 6, 6, 8]", r'give settings.depths=\["L"\]'),
        ("crop=6", "SSIM takes 7 pixels"),
    ],
)
def test_a_value_that_cannot_be_is_refused(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_files.changed(pretrain_recipes.paper(), [word])
