"""What a trainer is fed: the same degraded crops for every layout of ranks and workers, as floats that fit together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from dynet.data import Degrade, Noise, pair, turned
from dynet.degrade import Degradation, degrade, generator_of
from shards.store import LocalStore
from shards.stream import Batch, Plan, Stream
from tests.sets import write_set

PLAN = Plan(batch=8, window=20, crop=32, seed=5)
DERIVE = Degrade(seed=5, how=Degradation())
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, [13, 9, 8], size=48)
    return store.root


def opened(root: str, world: int = 1, workers: int = 0) -> list[Stream]:
    return [Stream(root, PLAN, rank=rank, world=world, workers=workers, derive=DERIVE) for rank in range(world)]


def derived(streams: list[Stream], count: int) -> list[bytes]:
    """The degraded crops of so many global batches."""
    found: list[bytes] = []
    while len(found) < count:
        for parts in zip(*streams, strict=True):
            assert all(part.derived is not None for part in parts)
            found.append(torch.cat([part.derived for part in parts]).numpy().tobytes())
            if len(found) == count:
                break
    return found


def test_every_layout_gives_the_same_bytes_from_any_step_on(root: str) -> None:
    [alone] = opened(root)
    expected = derived([alone], 8)
    assert len(set(expected)) == 8
    for world, workers in ((1, 2), (2, 0), (2, 2), (4, 1)):
        before = opened(root, world, workers)
        assert derived(before, 5) == expected[:5]
        [after] = opened(root)
        after.load_state_dict(before[0].state_dict())
        assert derived([after], 3) == expected[5:]


def test_what_is_derived_is_the_crop_degraded_by_its_epoch_and_name(root: str) -> None:
    [stream] = opened(root)
    for batch in stream:
        assert batch.derived is not None
        assert batch.derived.shape == batch.pixels.shape
        assert batch.derived.is_contiguous(memory_format=torch.channels_last)
        for pixels, found, sample, epoch in zip(batch.pixels, batch.derived, batch.samples, batch.epochs, strict=True):
            clean = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
            assert np.array_equal(found.permute(1, 2, 0), degrade(clean, generator_of(5, epoch, sample), DERIVE.how))


def test_without_it_nothing_is_derived_and_the_crops_are_the_same(root: str) -> None:
    plain, [stream] = Stream(root, PLAN), opened(root)
    for one, other in zip(plain, stream, strict=True):
        assert one.derived is None
        assert torch.equal(one.pixels, other.pixels)
        with pytest.raises(ValueError, match=r"no degraded crops: open the stream with derive="):
            pair(one, CPU)


def test_a_pair_is_floats_channels_last_on_the_device(root: str) -> None:
    [stream] = opened(root)
    batch = next(iter(stream))
    made = pair(batch, CPU)
    assert batch.derived is not None
    for floats, levels in ((made.degraded, batch.derived), (made.clean, batch.pixels)):
        assert floats.dtype == torch.float32
        assert floats.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(floats, levels.float() / 255)
        assert torch.equal((floats * 255).round().to(torch.uint8), levels)


def test_the_callable_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(DERIVE)) == DERIVE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_reach_the_gpu(root: str) -> None:
    [stream] = opened(root, workers=1)
    batch: Batch = next(iter(stream))
    assert batch.derived is not None
    assert batch.pixels.is_pinned() and batch.derived.is_pinned()
    assert torch.equal(pair(batch, torch.device("cuda")).degraded.cpu(), pair(batch, CPU).degraded)


def test_the_eight_turns_differ_and_keep_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    made = [turned(pixels, turn) for turn in range(8)]
    assert len({one.tobytes() for one in made}) == 8
    assert all(sorted(one.reshape(-1, 3).tolist()) == sorted(pixels.reshape(-1, 3).tolist()) for one in made)


def test_patches_for_denoising_are_turned_and_then_noisy() -> None:
    clean = np.random.default_rng(1).integers(60, 190, (40, 16, 16, 3), np.uint8)
    pixels, names = clean.copy(), [str(number) for number in range(40)]
    made = Noise(seed=1, sigmas=(5.0, 40.0))(pixels, names, [0] * 40)
    both = zip(clean, pixels, strict=True)
    turns = [next(turn for turn in range(8) if np.array_equal(turned(one, turn), other)) for one, other in both]
    assert set(turns) == set(range(8))
    levels = (made.astype(float) - pixels).std(axis=(1, 2, 3))
    assert all(abs(level - 5) < 1 or abs(level - 40) < 6 for level in levels)
    assert 8 < (levels < 20).sum() < 32
    again = clean.copy()
    assert np.array_equal(Noise(seed=1, sigmas=(5.0, 40.0))(again, names, [0] * 40), made)
    assert not np.array_equal(Noise(seed=1, sigmas=(5.0, 40.0))(clean.copy(), names, [1] * 40), made)
