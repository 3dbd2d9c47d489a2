"""A checkpoint is whole or isn't there, and one that was damaged is passed over."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from dynet import checkpoint
from dynet.checkpoint import CheckpointError
from shards.store import LocalStore, Store, open_store
from tests.conftest import S3Server


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": OrderedDict(a=torch.full((3,), float(step))), "curve": [0.5, None, "S"]}


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_what_is_written_is_read_and_the_last_few_are_kept(kind: str, tmp_path: Path, s3_server: S3Server) -> None:
    root = str(tmp_path) if kind == "local" else s3_server.bucket("checkpoints")
    store: Store = open_store(root, s3_server.endpoint_url if kind == "s3" else None)
    assert checkpoint.newest(store) is None
    for step in (5, 10, 100):
        checkpoint.save(store, step, state(step), keep=2)
    assert checkpoint.steps(store) == [10, 100]
    found = checkpoint.newest(store)
    assert found is not None
    assert torch.equal(found["weights"]["a"], torch.full((3,), 100.0))
    assert (found["step"], found["curve"]) == (100, [0.5, None, "S"])
    assert sorted(store.list("")) == sorted(
        f"checkpoints/step-{step:09d}.{suffix}" for step in (10, 100) for suffix in ("json", "pt")
    )


def test_without_its_commit_a_checkpoint_does_not_exist(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    checkpoint.save(store, 5, state(5), keep=3)
    store.write(checkpoint.name_of(6), b"half of a checkpoint that was being writ")
    assert checkpoint.steps(store) == [5]
    found = checkpoint.newest(store)
    assert found is not None and found["step"] == 5


def test_an_interim_one_goes_with_the_next_and_costs_no_other(tmp_path: Path) -> None:
    """Also one that a kill left beside a newer one, before it was taken away."""
    store = LocalStore(tmp_path)
    for step in (5, 10):
        checkpoint.save(store, step, state(step), keep=2)
    checkpoint.save(store, 12, state(12), keep=2, interim=True)
    assert checkpoint.steps(store) == [10, 12]
    kept = {name: store.read(name) for name in store.list(checkpoint.FOLDER) if "12" in name}
    checkpoint.save(store, 13, state(13), keep=2, interim=True)
    assert checkpoint.steps(store) == [10, 13]
    for name, data in kept.items():
        store.write(name, data)
    checkpoint.save(store, 15, state(15), keep=2)
    assert checkpoint.steps(store) == [10, 15]


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "no json"])
def test_a_damaged_one_is_passed_over_and_said(harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path)
    for step in (5, 6):
        checkpoint.save(store, step, state(step), keep=3)
    data = store.read(checkpoint.name_of(6))
    if harm == "cut":
        store.write(checkpoint.name_of(6), data[:-7])
    elif harm == "changed":
        store.write(checkpoint.name_of(6), data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif harm == "gone":
        store.delete(checkpoint.name_of(6))
    else:
        store.write(checkpoint.name_of(6).replace(".pt", ".json"), b"{")
    found = checkpoint.newest(store)
    assert found is not None and found["step"] == 5
    assert "step-000000006" in caplog.text
    assert checkpoint.steps(store) == [5]


def test_where_not_one_is_whole_nothing_begins_anew(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for step in (5, 6):
        checkpoint.save(store, step, state(step), keep=3)
        store.write(checkpoint.name_of(step), b"")
    for _ in range(2):  # the next attempt hears the same: nothing was taken away
        with pytest.raises(CheckpointError, match="give another --out"):
            checkpoint.newest(store)
    assert checkpoint.steps(store) == [5, 6]


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_a_file_that_would_run_code_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    sink = io.BytesIO()
    torch.save({"model": Hostile()}, sink)
    for data in (sink.getvalue(), pickle.dumps(Hostile()), b"", b"PK\3\4", json.dumps({"a": 1}).encode()):
        with pytest.raises(CheckpointError, match=r"^given\.ckpt (is no checkpoint|holds a print, and only tensors)"):
            checkpoint.loaded(data, "given.ckpt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bytes_that_are_nearly_a_checkpoint_are_refused_or_read(zipped: bool) -> None:
    sink = io.BytesIO()
    torch.save(state(1), sink, _use_new_zipfile_serialization=zipped)
    draw, refused = random.Random(3), 0
    for _ in range(1000):
        data = bytearray(sink.getvalue())
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            checkpoint.loaded(bytes(data), "given.ckpt")
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_tensor_alone_is_no_checkpoint() -> None:
    sink = io.BytesIO()
    torch.save(torch.zeros(3), sink)
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        checkpoint.loaded(sink.getvalue(), "given.ckpt")
