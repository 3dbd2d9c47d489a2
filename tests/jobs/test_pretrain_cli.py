"""`dynet-pretrain`: what it says, and the one sentence with which it stops before training starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dynet import curve
from dynet.progress import Progress
from dynet.validate import Quality
from jobs import pretrain as command
from jobs import shard, terminal, training
from pipelines import ranks as pipeline
from shards.store import LocalStore
from tests.conftest import free_port
from tests.jobs.conftest import Said
from tests.sets import write_set

WORDS = [
    "--recipe=demo",
    "--set=crop=16",
    "--set=batch=4",
    "--set=valid=4",
    "--set=settings.steps=6",
    "--set=model.refinement=1",
    '--set=settings.depths=["S", "L"]',
    "--set=every.validate=3",
    "--workers=0",
    "--device=cpu",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = LocalStore(tmp_path_factory.mktemp("set"))
    write_set(store, [12, 8], size=32)
    return store.root


@pytest.fixture
def stopped(refusal: Callable[[ModuleType, ModuleType], Said]) -> Said:
    return refusal(command, pipeline)


def test_a_run_says_how_it_goes_and_how_it_ended(made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    assert command.main([made, "--out", str(tmp_path), *WORDS]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("pretrain: ") and "samples/s" in said[0] and "% waiting" in said[0]
    assert said[-5].split() == ["depth", "loss,", "first", "last", "PSNR", "SSIM"]
    assert sorted(line.split()[0] for line in said[-4:-2]) == ["L", "S"]
    assert "6 steps in" in said[-2] and "0 skipped" in said[-2]
    assert str(tmp_path / "checkpoints" / "step-000000006.pt") in said[-1]
    assert command.main([made, "--out", str(tmp_path), *WORDS]) == 0
    assert "6 steps, none of them in" in capsys.readouterr().out
    for name in ("curve.png", "recipe.json", "pictures/step-000000006.png", "checkpoints/step-000000006.pt"):
        assert (tmp_path / name).is_file(), name


def test_prometheus_sees_how_training_goes(made: str, tmp_path: Path) -> None:
    """Asked again and again while it trains: the last answers are those of the last step."""
    torch.set_num_threads(1)
    port, over = free_port(), threading.Event()
    pages: list[str] = []

    def ask() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(OSError):
                pages.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())

    asking = threading.Thread(target=ask)
    asking.start()
    assert command.main([made, "--out", str(tmp_path), *WORDS, "--metrics-port", str(port)]) == 0
    over.set()
    asking.join()
    found = dict(line.rsplit(" ", 1) for line in pages[-1].splitlines() if line.startswith("million_ird_training"))
    for depth, (_, losses) in curve.by_depth(curve.read(LocalStore(tmp_path))).items():
        assert float(found[f'million_ird_training_loss{{depth="{depth}"}}']) == pytest.approx(losses.mean())
    assert float(found["million_ird_training_step"]) == 6
    assert float(found["million_ird_training_samples_per_second"]) > 0
    assert 0 < float(found["million_ird_training_data_wait_ratio"]) < 1
    assert float(found["million_ird_training_skipped_samples"]) == 0


def test_a_metrics_port_that_cant_be_had_is_said(made: str, tmp_path: Path, stopped: Said) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        said = stopped(made, "--out", tmp_path / "run", *WORDS, "--metrics-port", port)
    assert f"--metrics-port {port} can't be had (Address already in use): give another" in said
    assert "no port: give a number from 1 to 65535" in stopped(made, "--out", tmp_path, *WORDS, "--metrics-port", "0")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_a_file(made: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    assert command.main([made, "--out", str(tmp_path / "one"), *WORDS]) == 0
    weights = tmp_path / "one" / "checkpoints" / "step-000000006.pt"
    words = [*WORDS, "--set=settings.steps=1", "--set=settings.lr=1e-9", "--weights", str(weights)]
    assert command.main([made, "--out", str(tmp_path / "two"), *words]) == 0
    one, two = (
        torch.load(path, weights_only=True)["trainer"]["model"]
        for path in (weights, tmp_path / "two" / "checkpoints" / "step-000000001.pt")
    )
    assert all((one[name] - two[name]).abs().max() < 1e-8 for name in one)


def test_a_missing_or_empty_set_is_said(tmp_path: Path, stopped: Said, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no shards/manifest.json in" in stopped(tmp_path / "none", "--out", tmp_path / "run", *WORDS)
    store = LocalStore(tmp_path / "one")
    write_set(store, [9], size=32)
    assert "cut it into more, with dynet-shard" in stopped(store.root, "--out", tmp_path / "run", *WORDS)
    (tmp_path / "hosts.txt").write_text("a.example\nb.example\nc.example\n")
    empty = LocalStore(tmp_path / "empty")
    write_set(empty, [3, 3], size=32)
    assert shard.main(["forget", empty.root, "--hosts", str(tmp_path / "hosts.txt")]) == 0
    capsys.readouterr()
    assert "no samples left" in stopped(empty.root, "--out", tmp_path / "run", *WORDS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set=crop=64"], "crop is 64: the patches have 32 pixels a side"),
        (["--set=held_out=[7]"], "held_out has shard 7"),
        (["--set=held_out=[0, 1]"], "leave some to train on"),
        (['--set=settings.depths=["4,6,6"]'], "4,6,6"),
        (['--set=settings.depths=["4,6,6,99"]'], "99"),
        (["--recipe=papre"], "no recipe papre: give paper, demo or a JSON file"),
        (["--set=settings.accumulate=3"], "can't be cut into 3 parts"),
        (["--ranks=3"], "a batch of 4 can't be split over 3 ranks"),
        (["--weights=/nowhere.pt"], "/nowhere.pt can't be read"),
        (["--set=crop=5"], "SSIM takes 7 pixels"),
        (["--set=held_out=1"], "held_out is 1"),
        (["--set=seed=x"], "seed is 'x'"),
        (["--set=settings.steps=2.5"], "steps is 2.5"),
        (["--set=settings.compile=yes"], "compile is 'yes'"),
        (["--workers=-1"], "workers -1: give 0 or more"),
        (["--ranks=-1"], "ranks is -1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_training_starts(
    made: str, tmp_path: Path, stopped: Said, words: list[str], sentence: str
) -> None:
    assert sentence in stopped(made, "--out", tmp_path / "run", *WORDS, *words)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_where_there_is_none(made: str, tmp_path: Path, stopped: Said) -> None:
    assert "no GPU here" in stopped(made, "--out", tmp_path / "run", *WORDS, "--device=cuda")


def test_a_checkpoint_of_another_recipe_or_network(
    made: str, tmp_path: Path, stopped: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    assert command.main([made, "--out", str(tmp_path), *WORDS, "--set=settings.steps=1"]) == 0
    capsys.readouterr()
    for word, sentence in [
        ("--set=model.width=16", "begun with model.width = 8, now it is 16: give the same, or another --out"),
        ("--set=seed=3", "begun with seed = 0, now it is 3"),
        ("--set=degradation.masked=0.1", "begun with degradation.masked = 0.3"),
    ]:
        assert sentence in stopped(made, "--out", tmp_path, *WORDS, word)


def test_weights_of_another_network_or_of_none(made: str, tmp_path: Path, stopped: Said) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    assert "is no checkpoint" in stopped(made, "--out", tmp_path, *WORDS, "--weights", tmp_path / "text.pt")
    for content, sentence in [
        ({"weights": torch.zeros(3)}, "is missing: give a checkpoint of the released DyNet"),
        ({"trainer": {}}, "is no checkpoint of a run"),
        ({"trainer": {"model": {"embed.weight": 1}, "average": None}, "config": {}}, "its weights are no tensors"),
        ({"trainer": {"model": {}, "average": None}, "config": {}}, "of another network: to begin with it give --set"),
        ({"trainer": {"model": {}, "average": None}, "config": {"width": 8, "refinement": 1}}, "it lacks embed.weight"),
    ]:
        torch.save(content, tmp_path / "other.pt")
        assert sentence in stopped(made, "--out", tmp_path, *WORDS, "--weights", tmp_path / "other.pt")


def test_a_recipe_file_that_is_none(made: str, tmp_path: Path, stopped: Said) -> None:
    file = tmp_path / "recipe.json"
    for text, sentence in [
        ("{", "is no recipe"),
        ("[]", "is no recipe"),
        (json.dumps({"settings": {"steps": 3}, "speed": 9}), "no field speed"),
        (json.dumps({"settings": {"steps": 3, "speed": 9}}), "settings has no field speed"),
    ]:
        file.write_text(text)
        assert sentence in stopped(made, "--out", tmp_path, f"--recipe={file}")


def test_a_line_puts_first_what_a_narrow_terminal_shows() -> None:
    losses = {"L": 0.1, "S": 0.2, "3,4,4,6": 0.3, "2,4,4,6": 0.3}
    now = Progress(
        step=20, steps=800, losses=losses, norm=1.0, per_second=40.5, waits=0.04, memory=1_290_000_000, skipped=0,
        batch=4, qualities={"L": Quality(psnr=21.5, ssim=0.5)},
    )  # fmt: skip
    said = "40.5 samples/s; 4 % waiting; 1.29 GB; 1 min 17 s left; L 21.50 dB; loss S 0.2000, L 0.1000"
    assert training.note(now) == said


def test_sigterm_has_a_sentence_and_a_status_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise terminal.Terminated("stopped after step 3 of 6, which is saved")

    assert terminal.guarded("dynet-pretrain", work) == 143
    said = "dynet-pretrain: stopped after step 3 of 6, which is saved. The same command goes on from here.\n"
    assert capsys.readouterr().err == said


def test_ctrl_c_that_ends_other_processes_first_is_still_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            raise RuntimeError("worker exited unexpectedly")

    assert terminal.guarded("dynet-pretrain", work) == terminal.STOPPED
    assert capsys.readouterr().err == "\ndynet-pretrain: stopped. The same command goes on from here.\n"
