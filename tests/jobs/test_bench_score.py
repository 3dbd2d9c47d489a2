"""The bench of the engines adds up what it measured, and names the picture that is farthest apart."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.fit import fit
from curation.scorers import resolve
from jobs import bench_score
from jobs.bench import spread
from jobs.bench_score import Shot, Side
from jobs.bench_server import texture


def shot(name: str, megapixels: float, niqe: tuple[float, float], brisque: tuple[float, float, float]) -> Shot:
    """`niqe` by pyiqa and fused, `brisque` by these and by pyiqa in float64."""
    return Shot(
        name=name,
        megapixels=megapixels,
        decode=0.02 * megapixels,
        read=0.0,
        pyiqa=Side(
            seconds={"niqe": 0.8 * megapixels, "brisque": 0.2 * megapixels, "both": megapixels},
            scores={"niqe": niqe[0], "brisque": brisque[0]},
        ),
        fused=Side(
            seconds={"niqe": 0.004 * megapixels, "brisque": 0.002 * megapixels, "both": 0.005 * megapixels},
            scores={"niqe": niqe[1], "brisque": brisque[1]},
        ),
        exact=brisque[2],
    )


SHOTS = [
    shot("near.jpg", 2.0, (4.0, 4.0001), (10.0, 10.2, 10.2)),
    shot("far.jpg", 2.5, (5.4, 5.6), (44.0, 44.5, 44.5)),
    shot("neither.png", 24.0, (math.nan, math.nan), (30.0, 30.0, 30.0)),
]


def test_speed_is_seconds_by_pixels_and_by_size() -> None:
    lines = [line.split() for line in bench_score.speed(SHOTS).splitlines()]
    assert lines[1][-5:] == ["MP", "niqe", "0.8", "0.004", "200.00"]
    assert lines[3] == ["both", "1", "0.005", "200.00"]
    assert [" ".join(line[:6]) for line in lines[1::3]] == [
        "2 of 0 to 3 MP",
        "1 of 12 MP and more",
        "3 of all sizes niqe 0.8",
    ]


def test_the_floor_is_decoding_and_one_read() -> None:
    assert bench_score.floor(SHOTS).splitlines()[-1].split()[-4:] == ["0.02", "0", "0.005", "1.25"]


def test_the_largest_difference_has_a_name_and_verdicts_are_compared() -> None:
    lines = bench_score.equality(SHOTS, {"niqe": 5.5, "brisque": 45.0}).splitlines()
    assert lines[1].split()[-2:] == ["2.00e-01", "far.jpg"]
    assert lines[2].split()[-2:] == ["5.00e-01", "far.jpg"]
    assert lines[3].split()[-2] == "0.00e+00"
    assert lines[-1] == "verdicts at niqe <= 5.5, brisque <= 45 that differ: 1 of 3 far.jpg"


def test_a_score_that_one_side_lacks_is_infinitely_far() -> None:
    one_sided = shot("lost.jpg", 1.0, (4.0, math.nan), (10.0, 10.0, 10.0))
    assert "inf  lost.jpg" in bench_score.equality([*SHOTS, one_sided], {"niqe": 5.5})


@pytest.mark.parametrize(("limit", "numbers"), [(3, [0, 5, 10]), (1, [0]), (20, list(range(11))), (None, range(11))])
def test_pictures_are_spread_from_the_first_to_the_last(limit: int | None, numbers: list[int]) -> None:
    files = [Path(str(number)) for number in range(11)]
    assert spread(files, limit) == [files[number] for number in numbers]


@pytest.mark.slow
def test_both_engines_are_measured_and_agree(tmp_path: Path) -> None:
    pictures = [texture(seed, 480, 500) for seed in range(1, 7)]
    fit(pictures, tmp_path / "weights")
    for number, pixels in enumerate(pictures[:2]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    weights = resolve(bench_score.METRICS, tmp_path / "weights")
    shots = bench_score.measure([tmp_path / name for name in ("0.png", "1.png", "broken.jpg")], weights)
    assert [one.name for one in shots] == ["0.png", "1.png"]
    for one in shots:
        assert one.megapixels == pytest.approx(0.24)
        assert one.fused.scores["niqe"] == pytest.approx(one.pyiqa.scores["niqe"], abs=1e-3)
        assert one.fused.scores["brisque"] == pytest.approx(one.exact, abs=1e-3)
        assert all(seconds > 0 for side in (one.pyiqa, one.fused) for seconds in side.seconds.values())
    assert "2 of 0 to 3 MP" in bench_score.speed(shots)


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    pictures = [texture(seed, 480, 500) for seed in range(1, 7)]
    fit(pictures, tmp_path / "weights")
    cv2.imwrite(str(tmp_path / "picture.png"), np.tile(pictures[0], (3, 4, 1)))
    lines = bench_score.memory(tmp_path / "picture.png", tmp_path / "weights", tmp_path).splitlines()
    assert lines[0] == "picture.png, 2.9 MP, whose pixels take 9 MB"
    pyiqa, fused = (line.split() for line in lines[2:])
    assert (pyiqa[0], fused[0]) == ("pyiqa", "fused")
    assert float(pyiqa[1]) > 5 * float(fused[1]) > 0
