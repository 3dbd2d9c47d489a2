"""Pairs from folders: what they are, and that neither ranks, workers nor a stop change which comes when."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from dynet import folders
from dynet.folders import DE_TYPES, REPEATS, Source
from dynet.pairs import PairPlan, PairStream, pair_of
from dynet.randomness import generator
from shards.stream import Batch, StreamError
from tests.dynet.pair_folders import picture, save, write_folders

PLAN = PairPlan(batch=8, seed=3, crop=16)
TIMES = {**REPEATS, "derain": 4}
PAIRS = 3 * 5 * 3 + 3 * 4 + 4  # of an epoch: 61


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("pairs") / "Train")


def stream(data: Path, rank: int = 0, world: int = 1, workers: int = 0) -> PairStream:
    return PairStream(folders.find(data, DE_TYPES), TIMES, PLAN, rank=rank, world=world, workers=workers)


def told(batches: Iterable[Batch]) -> list[tuple[object, ...]]:
    """Names, epochs and pixels."""
    return [
        (one.samples, one.epochs, one.pixels.numpy().tobytes(), one.derived.numpy().tobytes())  # type: ignore[union-attr]
        for one in batches
    ]


def test_an_epoch_has_every_source_as_often_as_it_is_to_come(data: Path) -> None:
    one = stream(data)
    assert one.length == PAIRS
    both = [turn for batch in itertools.chain(one, one) for turn in zip(batch.epochs, batch.samples, strict=True)]
    samples = [name for epoch, name in both if epoch == 0]
    assert len(samples) == len(set(samples)) == PAIRS
    counts = Counter(name.partition("/")[0] for name in samples)
    assert counts == {"denoise_15": 15, "denoise_25": 15, "denoise_50": 15, "derain": 12, "dehaze": 4}


def test_the_tail_of_an_epoch_begins_the_next(data: Path) -> None:
    one = stream(data)
    assert [len(list(one)) for _ in range(3)] == [7, 8, 7]  # of 61, of 5 + 61, of 2 + 61


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (4, 0)])
def test_ranks_and_workers_change_nothing(data: Path, world: int, workers: int) -> None:
    whole = list(itertools.islice(stream(data), 5))
    ranks = [list(itertools.islice(stream(data, rank, world, workers), 5)) for rank in range(world)]
    for number, batch in enumerate(whole):
        parts = [rank[number] for rank in ranks]
        assert tuple(name for part in parts for name in part.samples) == batch.samples
        for column in ("pixels", "derived"):
            joined = np.concatenate([getattr(part, column).numpy() for part in parts])
            assert np.array_equal(joined, getattr(batch, column).numpy())


@pytest.mark.parametrize("stop", [3, 7, 10])
def test_a_stopped_stream_goes_on_where_it_was(data: Path, stop: int) -> None:
    """In an epoch, at its end, and across it; with other workers."""

    def batches(one: PairStream, count: int) -> list[Batch]:
        epochs = itertools.chain.from_iterable(itertools.repeat(one))
        return list(itertools.islice(epochs, count))

    whole = told(batches(stream(data), 14))
    first = stream(data)
    begun = told(batches(first, stop))
    second = stream(data, workers=1)
    second.load_state_dict(first.state_dict())
    assert begun + told(batches(second, 14 - stop)) == whole


def test_the_state_of_other_pictures_is_refused(data: Path) -> None:
    other = PairStream(folders.find(data, ["derain"]), TIMES, PLAN)
    with pytest.raises(ValueError, match="begun with other pictures"):
        other.load_state_dict(stream(data).state_dict())
    wider = PairStream(folders.find(data, DE_TYPES), TIMES, PairPlan(batch=4, seed=3, crop=16))
    with pytest.raises(ValueError, match="pairs were made with"):
        wider.load_state_dict(stream(data).state_dict())

    more = PairStream(folders.find(data, DE_TYPES), {**TIMES, "dehaze": 2}, PLAN)
    with pytest.raises(ValueError, match="begun with other pictures"):
        more.load_state_dict(stream(data).state_dict())


def by_name(one: PairStream) -> dict[str, bytes]:
    """The input crops of an epoch of haze, in which no noise is drawn."""
    return {
        name: row.numpy().tobytes() for batch in one for name, row in zip(batch.samples, batch.derived, strict=True)
    }  # type: ignore[arg-type]


def test_each_epoch_and_each_seed_has_crops_of_its_own(data: Path) -> None:
    haze = folders.find(data, ["dehaze"])
    one, other = (PairStream(haze, {"dehaze": 4}, PairPlan(batch=8, seed=seed, crop=16)) for seed in (1, 2))
    first, second, third = by_name(one), by_name(one), by_name(other)
    assert first.keys() == second.keys() == third.keys() and list(first) != list(third)
    assert sum(first[name] == second[name] for name in first) < len(first) / 4
    assert sum(first[name] == third[name] for name in first) < len(first) / 4


def test_a_picture_that_has_gone_since_it_was_checked_ends_it_by_name(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "Train")
    one = stream(data)
    (data / "Denoise/00003.png").unlink()
    with pytest.raises(StreamError, match=r"00003\.png can't be read"):
        list(one)


def test_what_cannot_be_streamed_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="a global batch of 8 can't be split over 3 ranks"):
        stream(data, world=3)
    with pytest.raises(ValueError, match="no picture to train on"):
        PairStream((), TIMES, PLAN)


def test_input_and_target_show_the_same_place_in_the_same_turn(data: Path) -> None:
    """Haze is a function of each clean pixel here, so any other place or turn would show."""
    hazy = next(one for one in folders.find(data, ["dehaze"]))
    seen = set()
    for number in range(40):
        clean, degraded = pair_of(hazy, 16, generator(str(number)))
        assert clean.shape == degraded.shape == (16, 16, 3)
        assert np.array_equal(degraded, clean // 2 + 100)
        seen.add(clean.tobytes())
    assert len(seen) > 30


def test_a_picture_as_large_as_the_crop_comes_in_its_eight_turns(tmp_path: Path) -> None:
    save(picture(1, 16, 16), tmp_path / "a.png")
    one = Source(de_type="denoise_15", name="a.png", clean=tmp_path / "a.png")
    assert len({pair_of(one, 16, generator(str(number)))[0].tobytes() for number in range(80)}) == 8


@pytest.mark.parametrize(("de_type", "sigma"), [("denoise_15", 15), ("denoise_50", 50)])
def test_noise_has_the_task_s_level(data: Path, de_type: str, sigma: float) -> None:
    differences = []
    for source in folders.find(data, [de_type]):
        clean, degraded = pair_of(source, 40, generator(source.name))
        inside = (clean > 110) & (clean < 145)  # where even strong noise is seldom clipped
        differences.append((degraded.astype(float) - clean)[inside])
    spread = np.concatenate(differences).std()
    assert spread == pytest.approx(sigma, rel=0.1)
