"""Workers end with their trainer, and where one ends otherwise its work is done all the same."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import Dataset

from shards.errors import StreamError
from shards.loader import feed

PROJECT = Path(__file__).resolve().parents[2]


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


class Doubled(Dataset[Any]):
    def __getitem__(self, number: int) -> int:
        return 2 * number


def test_sigterm_from_elsewhere_is_nothing_to_a_worker_and_the_trainer_s_ends_it() -> None:
    loader, asks = feed(Doubled(), workers=2)
    asks.begin = lambda: iter(range(40))
    before = children()
    answers = iter(loader)
    assert next(answers) == 0
    workers = list(children() - before)
    assert len(workers) == 2
    subprocess.run(["kill", "-TERM", *(str(one.pid) for one in workers)], check=True)
    assert list(answers) == [2 * number for number in range(1, 40)]
    assert list(loader) == [2 * number for number in range(40)]
    for one in workers:
        one.terminate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


class Fatal(Dataset[Any]):
    """Whoever is asked `last` is killed, so many times in all; the others answer."""

    def __init__(self, folder: Path, last: int, times: int) -> None:
        self.folder, self.last, self.times = folder, last, times

    def __getitem__(self, number: int) -> int:
        if number == self.last and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number


@pytest.mark.parametrize("at", [0, 39])
def test_others_take_the_place_of_a_worker_that_dies(at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader, asks = feed(Fatal(tmp_path, at, times=1), workers=2)
    asks.begin = lambda: iter(range(40))
    with caplog.at_level(logging.WARNING):
        assert list(loader) == [2 * number for number in range(40)]
        assert list(loader) == [2 * number for number in range(40)]
    assert len(list(tmp_path.iterdir())) == 1
    assert [record.message.startswith("a worker died, others take its place") for record in caplog.records] == [True]


@pytest.mark.slow  # DataLoader looks after its workers each 5 seconds
def test_workers_that_die_again_and_again_end_the_stream(tmp_path: Path) -> None:
    loader, asks = feed(Fatal(tmp_path, 7, times=100), workers=2)
    asks.begin = lambda: iter(range(40))
    answers = []
    with pytest.raises(
        StreamError, match=r"a worker died, .* 3 times without one batch: give fewer workers .*DataLoader worker"
    ):
        for one in loader:
            answers.append(one)
    assert answers == [2 * number for number in range(7)]


def test_a_death_does_not_disturb_what_the_trainer_does_meanwhile() -> None:
    loader, asks = feed(Doubled(), workers=2)
    asks.begin = lambda: iter(range(40))
    before = children()
    answers = iter(loader)
    assert next(answers) == 0
    for one in children() - before:
        one.kill()
    ends = time.monotonic() + 1
    while time.monotonic() < ends:  # a step of training: SIGCHLD arrives here
        pass
    assert list(answers) == [2 * number for number in range(1, 40)]


class Large(Dataset[Any]):
    """Answers of which eight are more than a pipe holds, and a tensor, which has to be fetched from the worker."""

    def __getitem__(self, number: int) -> tuple[int, bytes, torch.Tensor]:
        return number, bytes(9000), torch.full((1000,), number)


def test_a_worker_that_dies_with_answers_on_their_way_blocks_nobody() -> None:
    loader, asks = feed(Large(), workers=2)
    asks.begin = lambda: iter(range(40))
    before = children()
    answers = iter(loader)
    numbers = [next(answers)[0]]
    time.sleep(1)  # until all that may wait does
    min(children() - before, key=lambda one: one.pid).kill()
    signal.alarm(60)  # ends the process: nothing else gets out of a read
    try:
        for number, _, tensor in answers:
            numbers.append(number)
            assert tensor.unique().tolist() == [number]
    finally:
        signal.alarm(0)
    assert numbers == list(range(40))


ORPHANS = """
import time
from tests.shards.test_loader import Large
from shards.loader import feed
loader, asks = feed(Large(), workers=3)
asks.begin = lambda: iter(range(1000))
answers = iter(loader)
next(answers)
print("begun", flush=True)
time.sleep(1000)
"""


def test_workers_end_when_their_trainer_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=PROJECT, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"begun\n"
        workers = psutil.Process(trainer.pid).children()
        trainer.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    for one in alive:
        one.kill()
    assert len(workers) == 3
    assert not alive


class Wrong(Dataset[Any]):
    def __getitem__(self, number: int) -> int:
        raise RuntimeError("DataLoader worker (pid or not) has a mistake")


def test_a_mistake_is_no_death() -> None:
    loader, asks = feed(Wrong(), workers=1)
    asks.begin = lambda: iter(range(4))
    with pytest.raises(RuntimeError, match="Caught RuntimeError in DataLoader worker process 0"):
        list(loader)
