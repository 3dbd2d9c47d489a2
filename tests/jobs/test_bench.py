"""The bench measures what it says: memory over a tree of processes, shared pages once, patches as they lie in tars."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from curation.decode import decode
from curation.records import Picture
from jobs.bench_filter import Patches, against, grown, tars
from jobs.bench_runs import Run
from jobs.bench_server import LARGE, SCORED_EVERY, SMALL, PictureServer, tiny
from jobs.process_tree import Peaks, Watcher
from jobs.terminal import ratio, shown
from pipelines import baseline

MEGABYTE = 1 << 20

linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured on Linux")


def _peaks(script: str) -> Peaks:
    """Of a Python that prints a line when it is where it should be looked at, and ends when its input does."""
    command = [sys.executable, "-c", script]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        Watcher(process.pid, 0.02) as peaks,
    ):
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline()
        time.sleep(0.3)
        process.stdin.close()
    return peaks


@linux
def test_memory_of_children_counts() -> None:
    child = "import sys; held = bytearray(b'1') * (100 << 20); print('here', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    peaks = _peaks(parent)
    assert 100 * MEGABYTE < peaks.tree < 160 * MEGABYTE
    assert 100 * MEGABYTE < peaks.role["other"] < 130 * MEGABYTE
    assert peaks.role["driver"] < 30 * MEGABYTE
    assert peaks.cpu_seconds > 0


@linux
def test_memory_that_two_processes_share_counts_once() -> None:
    script = """if True:
        import mmap, os, sys
        held = mmap.mmap(-1, 100 << 20)
        for _ in range(100):
            held.write(b"1" * (1 << 20))
        if os.fork() == 0:
            sum(held[::4096])  # touches every page, so both have them mapped
            print("here", flush=True)
        sys.stdin.read()
    """
    assert 100 * MEGABYTE < _peaks(script).tree < 180 * MEGABYTE


def test_the_ratio_is_the_second_contender_over_the_first() -> None:
    plain = (Run(seconds=100.0, peaks=Peaks(tree=2_000_000_000)), Patches(pictures=9, patches=100, bytes=50_000_000))
    ours = (Run(seconds=50.0, peaks=Peaks(tree=3_000_000_000)), Patches(pictures=8, patches=80, bytes=8_000_000))
    lines = against("plain", plain, "ours", ours, 10).splitlines()
    cells = {line[:22].strip(): line[22:].split() for line in lines[1:]}
    assert cells["pictures/s"] == ["0.1", "0.2", "2.00"]
    assert cells["seconds"] == ["100", "50", "0.50"]
    assert cells["peak memory, MB"] == ["2000", "3000", "1.50"]
    assert cells["KB a patch"] == ["500", "100", "0.20"]


def test_growth_is_the_longest_list_over_the_shortest() -> None:
    runs = [
        Run(seconds=10.0, peaks=Peaks(tree=4_000_000_000, role={"driver": 700_000_000})),
        Run(seconds=100.0, peaks=Peaks(tree=4_400_000_000, role={"driver": 700_000_000, "worker": 1})),
    ]
    lines = {line[:25].strip(): line.split()[-3:] for line in grown([1000, 20000], runs).splitlines()}
    assert lines["rows/s"] == ["100", "200", "2.00"]
    assert lines["driver, peak"] == ["700", "700", "1.00"]
    assert lines["all processes, peak"] == ["4000", "4400", "1.10"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123456, "0.123"), (7.0, "7"), (12.345, "12.3"), (99.96, "100"), (2.5e6, "2500000")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_nothing_has_no_multiple() -> None:
    assert ratio(1.0, 0.0) == "-"


def test_patches_are_counted_without_their_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        for name in ("a_00000_00000.jpg", "a_00000_00000.json", "a_00000_00512.jpg", "b_00000_00000.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    assert tars(tmp_path) == Patches(pictures=2, patches=3, bytes=15)


def test_the_plain_script_cuts_every_whole_patch_without_loss(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1030, 1540, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0001.png")
    baseline.cut([tmp_path / "0001.png"], tmp_path / "patches.tar")
    with tarfile.open(tmp_path / "patches.tar") as tar:
        assert len(tar.getnames()) == 6
        member = tar.extractfile("0001_00512_01024.png")
        assert member is not None
        with Image.open(member) as patch:
            assert np.array_equal(np.asarray(patch), pixels[512:1024, 1024:1536])


def test_every_tiny_picture_is_whole_and_another_file() -> None:
    numbers = [0, 1, 2, SCORED_EVERY, SCORED_EVERY + 1]
    bodies = [tiny(number) for number in numbers]
    assert len(set(bodies)) == len(bodies)
    for number, body in zip(numbers, bodies, strict=True):
        picture = decode(body, 1 << 20)
        assert isinstance(picture, Picture)
        assert picture.width == (LARGE if number % SCORED_EVERY == 0 else SMALL)


def test_the_server_times_its_answers() -> None:
    def slow(number: int) -> bytes:
        time.sleep(0.2)
        return bytes([number])

    with PictureServer(slow) as server, ThreadPoolExecutor(4) as pool:
        bodies = list(pool.map(lambda number: urlopen(server.url(number)).read(), range(8)))
        assert bodies == [bytes([number]) for number in range(8)]
        time.sleep(0.1)
        assert server.answers == 8
        assert 0.4 <= server.seconds < 5
