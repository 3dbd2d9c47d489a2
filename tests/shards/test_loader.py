"""Workers end with their trainer, and with nothing else."""

from __future__ import annotations

import subprocess
from typing import Any

import psutil
from torch.utils.data import Dataset

from shards.loader import feed


class Doubled(Dataset[Any]):
    def __getitem__(self, number: int) -> int:
        return 2 * number


def test_sigterm_from_elsewhere_is_nothing_to_a_worker_and_the_trainer_s_ends_it() -> None:
    loader, asks = feed(Doubled(), workers=2)
    asks.begin = lambda: iter(range(40))
    before = psutil.Process().children()
    answers = iter(loader)
    workers = [one for one in psutil.Process().children() if one not in before]
    assert len(workers) == 2
    subprocess.run(["kill", "-TERM", *(str(one.pid) for one in workers)], check=True)
    assert list(answers) == [2 * number for number in range(40)]
    assert list(loader) == [2 * number for number in range(40)]
    for one in workers:
        one.terminate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
