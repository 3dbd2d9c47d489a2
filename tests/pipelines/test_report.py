"""The report of a ledger with more than one group of parts is made by Ray's workers, and is the same."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from curation import ledger
from curation.report import PAGE, write_report
from curation.settle import GROUP
from pipelines.report import reported
from shards.store import LocalStore
from tests.curation.test_report import ABOUT, METRICS, gone


@dataclass(frozen=True, slots=True)
class Watched(LocalStore):
    """A local store that notes which process reads a ledger part."""

    notes: Path

    def read(self, name: str) -> bytes:
        if name.startswith(ledger.FOLDER):
            (self.notes / str(os.getpid())).touch()
        return LocalStore.read(self, name)

    def readers(self) -> set[int]:
        return {int(path.name) for path in self.notes.iterdir()}


def watched(folder: Path, parts: int) -> Watched:
    notes = folder / "notes"
    notes.mkdir()
    store = Watched(folder / "store", notes)
    for number in range(parts):
        ledger.write(store, f"chunk-{number:08d}", [gone(number)], METRICS, ABOUT)
    return store


def test_one_group_is_read_here_without_a_ray(tmp_path: Path) -> None:
    store = watched(tmp_path, 3)
    reported(store)
    assert store.readers() == {os.getpid()}
    assert not ray.is_initialized()


@pytest.mark.usefixtures("local_ray")
def test_more_than_one_are_read_by_rays_workers_with_the_same_page(tmp_path: Path) -> None:
    store = watched(tmp_path, GROUP + 1)
    reported(store)
    assert store.readers() - {os.getpid()}
    page = store.read(PAGE)
    write_report(store)
    assert store.read(PAGE) == page


@pytest.mark.usefixtures("local_ray")
def test_what_a_worker_finds_broken_is_said_as_it_is_here(tmp_path: Path) -> None:
    store = watched(tmp_path, GROUP + 1)
    store.write(ledger.part_name(f"chunk-{GROUP:08d}"), b"no Parquet")
    with pytest.raises(ValueError, match=rf"chunk-{GROUP:08d}.parquet is no ledger part"):
        reported(store)
    assert not store.exists(PAGE)
