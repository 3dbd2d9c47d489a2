"""The bench of the cascade counts what it says, and would notice if it kept other pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curation.scorers import Panel
from jobs.bench_cascade import Work, measured, saved, table
from pipelines import recipes
from tests.pipelines.conftest import encoded, texture

THRESHOLDS = recipes.thresholds({"jpeg_quality": 50.0, "uniform_border": 0.9}, min_res=400)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    framed = texture(3)
    framed[:30], framed[-30:], framed[:, :30], framed[:, -30:] = 255, 255, 255, 255
    bodies = {
        "fine.jpg": encoded(texture(1), quality=90),
        "crushed.jpg": encoded(texture(2), quality=30),
        "framed.jpg": encoded(framed, quality=90),
        "page.jpg": b"<!doctype html>" + bytes(20_000),
        "small.png": encoded(np.ascontiguousarray(texture(4)[:200]), "PNG"),
    }
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    return sorted(tmp_path.iterdir())


def test_both_keep_the_same_and_the_cascade_reads_and_scores_less(files: list[Path]) -> None:
    panel = Panel({"jpeg_quality": (), "uniform_border": ()})
    full, short = (measured(files, panel, THRESHOLDS, cascade) for cascade in (False, True))
    assert [one.name for one in full.kept] == [one.name for one in short.kept] == ["fine.jpg"]
    assert full.bytes_read == sum(file.stat().st_size for file in files)
    assert (full.by_header, short.by_header) == (0, 3)
    by_name = {file.name: file.stat().st_size for file in files}
    assert short.bytes_read < by_name["fine.jpg"] + by_name["framed.jpg"] + 3 * (1 << 16)
    assert full.scores == {"jpeg_quality": 4, "uniform_border": 3}
    assert short.scores == {"jpeg_quality": 2, "uniform_border": 2}


def test_other_kept_pictures_are_no_saving() -> None:
    one = Work(kept=(Path("a"),), cpu_seconds=4.0, bytes_read=8_000_000, by_header=0, scores=Counter({"niqe": 10}))
    less = replace(one, cpu_seconds=1.0, bytes_read=2_000_000, by_header=3, scores=Counter({"niqe": 5}))
    rows = {line.split("  ")[0]: line.split()[-1] for line in saved(one, less).splitlines()}
    assert (rows["MB read"], rows["CPU seconds a kept picture"], rows["scores of niqe"]) == ("0.25", "0.25", "0.50")
    with pytest.raises(RuntimeError, match="this is a defect"):
        saved(one, replace(less, kept=()))


def test_a_metric_that_the_recipe_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the default recipe has no musiq"):
        table([tmp_path], None, ("niqe", "musiq"))
