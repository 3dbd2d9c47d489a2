"""Ranks on a real Ray: what one of them dies of reaches the caller, at once where it would only come again."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dynet import checkpoint, curve
from dynet.progress import Progress
from jobs import pretrain
from pipelines import ranks
from pipelines.ranks import Launch, Rank, _ray_place, check, launch
from shards.store import LocalStore, open_store
from shards.stream import StreamError
from tests.conftest import S3Server
from tests.sets import write_set

WAITED = 120.0  # seconds: three more attempts, and gloo's patience, would take longer


def one_rank_refuses(rank: Rank) -> Progress:
    """As where rank 0 alone looks at the held-out crops: the others wait for it."""
    if rank.rank == 0:
        raise ValueError("the held-out shard is empty: hold out another")
    torch.distributed.barrier()
    raise AssertionError("rank 0 never came")


@pytest.mark.slow
def test_ray_s_own_notes_go_to_the_server_of_the_environment(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all that boto3 sends does."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    bucket = s3_server.bucket("notes")
    place = _ray_place(open_store(f"{bucket}/run"))
    place["storage_filesystem"].create_dir(place["storage_path"])
    assert "run/ray/" in list(open_store(bucket).list(""))


@pytest.mark.slow
def test_a_mistake_that_one_rank_finds_ends_the_run_at_once(tmp_path: Path, local_ray: None) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match="the held-out shard is empty: hold out another"):
        launch(Launch(out=LocalStore(tmp_path), ranks=2), one_rank_refuses, lambda now: None)
    assert time.monotonic() - begun < WAITED


def fails_each_time(out: LocalStore, rank: Rank) -> Progress:
    """It gets further the first time, and no more."""
    out.write(f"attempts/{len(list(out.list('attempts/')))}", b"")
    if not checkpoint.steps(out):
        checkpoint.save(out, 5, {}, keep=1)
    raise StreamError(f"rank {rank.rank} can't read on")


@pytest.mark.slow
def test_losses_are_forgiven_while_the_run_gets_on(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run on spot nodes that is lost more often than is forgiven, but each time has a checkpoint more."""
    monkeypatch.setattr(ranks, "_FAILURES", 0)
    out = LocalStore(tmp_path)
    with pytest.raises(StreamError, match="rank 0 can't read on"):
        launch(Launch(out=out, ranks=1), functools.partial(fails_each_time, out), lambda now: None)
    assert len(list(out.list("attempts/"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_ray_of_the_job_s_own_without_a_gpu_is_refused(tmp_path: Path) -> None:
    write_set(LocalStore(tmp_path / "set"), [12, 8], size=32)
    words = [sys.executable, "-m", "jobs.pretrain", str(tmp_path / "set"), "--out", str(tmp_path / "run")]
    words += ["--recipe=demo", "--set=crop=16", "--device=cuda", "--ranks=2"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=WAITED, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "dynet-pretrain: 2 ranks need a GPU each, and this machine has 0: give fewer, or --device cpu"
    )


ON_TWO_NODES = """
import os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address
from jobs import pretrain
from pipelines import ranks
sys.exit(pretrain.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ranks_on_two_nodes_have_the_batches_of_one(tmp_path: Path) -> None:
    """Each node has one core, and each rank needs one: the run ends only if they work together over the network."""
    write_set(LocalStore(tmp_path / "set"), [12, 8], size=32)
    words = [str(tmp_path / "set"), "--recipe=demo", "--set=crop=16", "--set=settings.steps=6", "--device=cpu"]
    words += ["--set=model.refinement=1", "--set=valid=4", "--workers=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [sys.executable, "-c", ON_TWO_NODES, *words, "--out", str(tmp_path / "two"), "--ranks=2"]
    ended = subprocess.run(both, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert pretrain.main([*words, "--out", str(tmp_path / "one")]) == 0
    one, two = (curve.read(LocalStore(tmp_path / name)) for name in ("one", "two"))
    for column in ("step", "depth", "samples", "taken"):
        assert one[column] == two[column]
    assert two["loss"].to_pylist() == pytest.approx(one["loss"].to_pylist(), rel=1e-3)


@pytest.mark.parametrize(
    ("ranks", "workers", "batch", "accumulate", "said"),
    [
        (-1, 0, 8, 1, "give 0 or more"),
        (0, -1, 8, 1, "give 0 or more"),
        (3, 0, 8, 1, "a batch of 8 can't be split over 3 ranks"),
        (4, 0, 8, 4, "2 samples of a rank can't be cut into 4 parts"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, ranks: int, workers: int, batch: int, accumulate: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check(Launch(out=LocalStore(tmp_path), ranks=ranks), workers, batch, accumulate)
