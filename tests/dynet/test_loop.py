"""A run that is asked to stop: where it ends, and that nothing of it shows in the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynet import checkpoint, curve
from dynet.data import Degrade
from dynet.degrade import Degradation
from dynet.loop import Every, Run, Stop, Stopped, train
from dynet.model import DyNet, ModelConfig
from dynet.train import Settings, Trainer
from shards.sequence import Plan
from shards.store import LocalStore
from shards.stream import Stream
from tests.sets import write_set
from tests.states import digest

SETTINGS = Settings(steps=12, lr=1e-3, depths=("1,1,1,1", "1,2,2,2"))
EVERY = Every(checkpoint=5, keep=2, validate=100, pictures=100, report=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, [9, 10], size=32)  # an epoch is four steps and a part
    return store.root


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(made: str, out: LocalStore, stop: Stop, every: Every = EVERY) -> Trainer:
    """Until its end, or Stopped."""
    torch.manual_seed(0)
    model = DyNet(ModelConfig(width=8, refinement=1))
    stream = Stream(made, Plan(batch=4, crop=16), derive=Degrade(seed=0, how=Degradation()))
    trainer = Trainer(model, SETTINGS, seed=0, device=torch.device("cpu"))
    train(
        trainer,
        stream,
        Run(out=out, every=every, about={}, batch=4),
        lambda now: stop.told() if isinstance(stop, After) else None,
        stop,
    )
    return trainer


class After(Stop):
    """Is asked to stop behind so many steps, by what is told of them."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps
        self.told()

    def told(self) -> None:
        if self._left == 0:
            self.ask()
        self._left -= 1


def left(out: LocalStore) -> dict[str, bytes | str]:
    """The curve to the byte, the checkpoints to the bit."""
    found: dict[str, bytes | str] = {name: out.read(name) for name in out.list(curve.FOLDER)}
    return found | {checkpoint.name_of(step): digest(checkpoint.load(out, step)) for step in checkpoint.steps(out)}


def stopped(made: str, out: LocalStore, stops: Iterable[int], every: Every = EVERY) -> list[int]:
    """After which step each attempt stopped that was asked to after so many."""
    found = []
    for steps in stops:
        with pytest.raises(Stopped):
            trained(made, out, After(steps), every)
        found.append(checkpoint.steps(out)[-1])
    return found


def test_it_stops_after_the_step_in_hand_and_saves_it(made: str, tmp_path: Path) -> None:
    out = LocalStore(tmp_path)
    with pytest.raises(Stopped, match=r"^stopped after step 7 of 12, which is saved$"):
        trained(made, out, After(7))
    assert checkpoint.steps(out) == [5, 7]
    assert curve.read(out)["step"].to_pylist() == [1, 2, 3, 4, 5]
    assert [point["step"] for point in checkpoint.load(out, 7)["points"]] == [6, 7]


class Waiting(Stop):
    """SIGALRM asks a while after so many batches were waited for."""

    def __init__(self, batches: int, seconds: float) -> None:
        super().__init__()
        self._left, self._seconds = batches, seconds

    @contextmanager
    def waking(self) -> Iterator[None]:
        with super().waking():
            self._left -= 1
            if self._left == 0:
                signal.signal(signal.SIGALRM, lambda *_: self.ask())
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
            yield
            if self._left == 0:
                time.sleep(100)  # a store that doesn't answer; or it asks between a batch's coming and its step


@pytest.mark.parametrize("seconds", [0.0005, 0.01, 0.3])
def test_it_stops_at_once_where_it_waits_for_a_batch(made: str, tmp_path: Path, seconds: float) -> None:
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    trained(made, calm, Stop())
    begun = time.monotonic()
    for batches in (3, 4, 1):  # in an epoch, behind its end, and where nothing is new
        with pytest.raises(Stopped):
            trained(made, hurt, Waiting(batches, seconds))
    assert time.monotonic() - begun < 60
    assert checkpoint.steps(hurt) == [4]
    assert [point["step"] for point in checkpoint.load(hurt, 4)["points"]] == [1, 2, 3, 4]
    trained(made, hurt, Stop())
    assert left(hurt) == left(calm)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_however_often_it_is_stopped_the_end_is_that_of_an_undisturbed_run(
    made: str, tmp_path: Path, keep: int
) -> None:
    """In an epoch and at its end, twice before a checkpoint, just at one, and at once."""
    every = replace(EVERY, keep=keep)
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    trained(made, calm, Stop(), every)
    assert stopped(made, hurt, [3, 1, 1, 0, 2, 3, 0, 1], every) == [3, 4, 5, 5, 7, 10, 10, 11]
    trained(made, hurt, Stop(), every)
    assert left(hurt) == left(calm)
    assert sorted(hurt.list("")) == sorted(calm.list(""))


def test_a_run_at_its_end_and_one_before_its_beginning(made: str, tmp_path: Path) -> None:
    """The first has no more to do, the second nothing to save."""
    assert trained(made, LocalStore(tmp_path / "ended"), After(12)).step == 12
    with pytest.raises(Stopped, match=r"^stopped before step 1$"):
        trained(made, LocalStore(tmp_path / "begun"), After(0))
    assert not list(LocalStore(tmp_path / "begun").list(""))


def test_killed_behind_a_stop_it_goes_on_from_there(made: str, tmp_path: Path) -> None:
    """At the next checkpoint, between curve and commit: the curve that is too long goes, and comes again."""
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    trained(made, calm, Stop())
    stopped(made, hurt, [7])
    hurt.write("curve/000000006-000000010.parquet", calm.read("curve/000000006-000000010.parquet"))
    trained(made, hurt, Stop())
    assert left(hurt) == left(calm)


def test_a_damaged_stop_costs_its_steps_and_no_more(made: str, tmp_path: Path) -> None:
    calm, hurt = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "hurt")
    trained(made, calm, Stop())
    stopped(made, hurt, [7])
    hurt.write(checkpoint.name_of(7), b"half of it")
    trained(made, hurt, Stop())
    assert left(hurt) == left(calm)
