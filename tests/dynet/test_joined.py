"""Two streams as one: both parts of each batch, whichever rank takes them, and wherever a run was stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynet import folders
from dynet.data import Noise
from dynet.folders import DE_TYPES
from dynet.joined import Joined
from dynet.loop import digest
from dynet.pairs import PairPlan, PairStream
from shards.sequence import Plan
from shards.store import LocalStore
from shards.stream import Batch, Stream
from tests.dynet.pair_folders import write_folders
from tests.sets import write_set

PATCHES, PAIRS = 7, 12  # of an epoch: 3 rainy pictures, 4 times
TIMES = dict.fromkeys(DE_TYPES, 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("joined")
    write_folders(root / "Train")
    write_set(LocalStore(root / "set"), [PATCHES], size=32)
    return root


def joined(root: Path, rank: int = 0, world: int = 1) -> Joined:
    patches = Stream(
        str(root / "set"), Plan(batch=2, crop=16), rank=rank, world=world, derive=Noise(seed=0, sigmas=(25,))
    )
    rain = folders.find(root / "Train", ["derain"])
    return Joined(patches, PairStream(rain, TIMES, PairPlan(batch=4, crop=16), rank=rank, world=world))


def endless(one: Joined) -> Iterator[Batch]:
    return itertools.chain.from_iterable(itertools.repeat(one))


def test_each_batch_has_its_part_of_either_and_an_epoch_is_that_of_the_pairs(root: Path) -> None:
    one = joined(root)
    assert [len(list(one)) for _ in range(3)] == [3, 3, 3]
    for batch in itertools.islice(endless(one), 5):
        assert [name.startswith("derain/") for name in batch.samples] == [False] * 2 + [True] * 4
        assert batch.derived is not None and batch.pixels.shape == batch.derived.shape == (6, 3, 16, 16)


def test_no_patch_comes_again_before_all_have_come(root: Path) -> None:
    """Their epoch goes on where that of the pairs ends."""
    samples = [name for batch in itertools.islice(endless(joined(root)), 7) for name in batch.samples[:2]]
    assert len(set(samples[:PATCHES])) == len(set(samples[PATCHES:])) == PATCHES


def test_two_ranks_have_together_what_one_has(root: Path) -> None:
    whole = itertools.islice(endless(joined(root)), 8)
    ranks = [itertools.islice(endless(joined(root, rank, 2)), 8) for rank in range(2)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert batch.samples[:2] == tuple(name for part in parts for name in part.samples[:1])
        assert batch.samples[2:] == tuple(name for part in parts for name in part.samples[1:])
        assert torch.equal(batch.pixels[2:], torch.cat([part.pixels[1:] for part in parts]))


def test_the_digest_of_a_batch_is_that_of_any_ranks_and_of_no_other_order(root: Path) -> None:
    whole = next(iter(joined(root)))
    parts = [next(iter(joined(root, rank, 2))) for rank in range(2)]
    assert (sum(digest(part, rank) for rank, part in enumerate(parts)) - digest(whole, 0)) % (1 << 64) == 0
    names = whole.samples
    assert digest(replace(whole, samples=(*names[:2], names[3], names[2], *names[4:])), 0) != digest(whole, 0)
    assert digest(replace(whole, epochs=(1, *whole.epochs[1:])), 0) != digest(whole, 0)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_run_goes_on_with_the_same_of_both(root: Path, stop: int) -> None:
    """In an epoch, at its end, and behind it."""
    whole = list(itertools.islice(endless(joined(root)), 9))
    first = joined(root)
    list(itertools.islice(endless(first), stop))
    second = joined(root)
    second.load_state_dict(first.state_dict())
    for one, other in zip(whole[stop:], endless(second), strict=False):
        assert (one.samples, one.epochs) == (other.samples, other.epochs)
        assert one.derived is not None and other.derived is not None
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.derived, other.derived)


def test_the_state_of_one_stream_is_refused(root: Path) -> None:
    rain = PairStream(folders.find(root / "Train", ["derain"]), TIMES, PairPlan(batch=4, crop=16))
    with pytest.raises(ValueError, match="begun with other data"):
        joined(root).load_state_dict(rain.state_dict())
