"""The fused engine gives pyiqa's numbers: NIQE as pyiqa does, BRISQUE as pyiqa does in float64."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import scipy.signal
import torch
from pyiqa.utils.color_util import to_y_channel

from curation.decode import decode
from curation.records import Picture, Reason
from curation.scorers import FusedScorer, PyiqaScorer, resolve
from curation.scorers.fused import BLOCK
from curation.scorers.mscn import WINDOW, block_sums, halved, luma, picture_sums, shared_sums
from curation.scorers.pyiqa_build import build, to_tensor
from curation.scorers.weights import pinned
from tests.conftest import SHARED
from tests.curation.scorers.conftest import of_luma

METRICS = ("niqe", "brisque")
IQA = SHARED / "data" / "iqa"


@pytest.fixture(scope="module")
def official() -> Path:
    if not IQA.is_dir():
        pytest.skip("needs LIVE's parameters in ../shared")
    return IQA


@pytest.fixture(scope="module")
def scorers(official: Path) -> tuple[FusedScorer, PyiqaScorer]:
    weights = resolve(METRICS, official)
    both = FusedScorer(weights), PyiqaScorer(weights)
    for scorer in both:
        scorer.setup()
    return both


@pytest.fixture(scope="module")
def brisque64(official: Path) -> Callable[[np.ndarray], float]:
    """pyiqa's BRISQUE in float64, of the luma that its float32 gives: half-way colours round apart in the two."""
    model = build("brisque", device=torch.device("cpu"), find=pinned(resolve(("brisque",), official)["brisque"]))

    def score(pixels: np.ndarray) -> float:
        return float(model(torch.from_numpy(luma(pixels).astype(np.float64))[None, None] / 255))

    return score


Niqe = Callable[[np.ndarray, float, float], float]


@pytest.fixture(scope="module")
def pyiqas_niqe(official: Path) -> Niqe:
    """What pyiqa gave for a picture, or where that is not `ours`, what it gives for the picture's luma.

    One colour in a thousand lies half way between two levels, and pyiqa's product of matrices rounds it as the
    processor likes: fused as AMD's do, so that I03's NIQE is 15.6558; on an Intel with AVX-512 pyiqa's is 15.6532.
    """
    scorer = PyiqaScorer(resolve(("niqe",), official))
    scorer.setup()

    def score(pixels: np.ndarray, ours: float, theirs: float) -> float:
        same = math.isclose(ours, theirs, abs_tol=1e-3) or math.isnan(theirs)
        return theirs if same else scorer.score(of_luma(pixels)).scores["niqe"]

    return score


def pictures() -> dict[str, np.ndarray]:
    """Textures, and what is hard: saturated areas, odd sizes, one block, steep contrast, grey."""
    generator = np.random.default_rng(5)
    noise = generator.normal(0, 1, (331, 417, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = np.clip(128 + 400 * smooth + 12 * noise, 0, 255).astype(np.uint8)
    clipped = np.clip(180 + 900 * smooth, 0, 255).astype(np.uint8)
    half_white = texture.copy()
    half_white[:, 200:] = 255
    return {
        "texture": texture,
        "clipped": clipped,
        "half white": half_white,
        "one block": texture[:100, :150].copy(),
        "two blocks": texture[:100, :200].copy(),
        "grey": np.repeat(texture[..., :1], 3, axis=2),
        "crushed": cv2.imdecode(cv2.imencode(".jpg", texture, [cv2.IMWRITE_JPEG_QUALITY, 8])[1], cv2.IMREAD_COLOR),
        "dark": (texture // 6).astype(np.uint8),
    }


@pytest.mark.parametrize("name", pictures())
def test_scores_are_pyiqas(
    name: str,
    scorers: tuple[FusedScorer, PyiqaScorer],
    brisque64: Callable[[np.ndarray], float],
    pyiqas_niqe: Niqe,
) -> None:
    pixels = pictures()[name]
    ours, theirs = (scorer.score(pixels).scores for scorer in scorers)
    niqe = pyiqas_niqe(pixels, ours["niqe"], theirs["niqe"])
    assert ours["niqe"] == pytest.approx(niqe, abs=1e-3, nan_ok=True)
    exact = brisque64(pixels)
    assert abs(ours["brisque"] - exact) <= max(1e-3, abs(theirs["brisque"] - exact))


def test_official_pictures_score_as_near_to_matlab_as_pyiqa_does(
    scorers: tuple[FusedScorer, PyiqaScorer], brisque64: Callable[[np.ndarray], float], official: Path
) -> None:
    """BRISQUE as near as pyiqa's float64: its float32 is 3 points nearer by chance in the saturated one, I19."""
    with (official / "resultscalibra" / "results_official.csv").open(newline="") as file:
        matlab = {row.pop("Method"): row for row in csv.DictReader(file)}
    for name, expected in matlab["niqe"].items():
        pixels = _read(official / "resultscalibra" / "dist_dir" / name)
        ours, theirs = (scorer.score(pixels).scores for scorer in scorers)
        assert abs(ours["niqe"] - float(expected)) <= abs(theirs["niqe"] - float(expected)) + 1e-3
        wanted = float(matlab["brisque"][name])
        assert abs(ours["brisque"] - wanted) <= abs(brisque64(pixels) - wanted) + 1e-3


def _read(path: Path) -> np.ndarray:
    """A picture that pyiqa could score: (H, W, 3), or (0, 0, 3) for a file that is none."""
    if path.suffix == ".bmp":
        return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    picture = decode(path.read_bytes())
    return picture.pixels if isinstance(picture, Picture) else np.zeros((0, 0, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["photos", "bad", "iqa", "restoration"])
def test_real_pictures_score_and_are_judged_as_by_pyiqa(
    folder: str,
    scorers: tuple[FusedScorer, PyiqaScorer],
    brisque64: Callable[[np.ndarray], float],
    pyiqas_niqe: Niqe,
) -> None:
    """The middle of each, 640 pixels a side, to bound pyiqa's time; whole pictures: `jobs/bench.py score`."""
    compared = 0
    for path in sorted((SHARED / "data" / folder).rglob("*.*")):
        pixels = _read(path)
        height, width = pixels.shape[:2]
        if min(height, width) < BLOCK:
            continue
        top, left = max(0, height // 2 - 320), max(0, width // 2 - 320)
        pixels = np.ascontiguousarray(pixels[top : top + 640, left : left + 640])
        ours, theirs = (scorer.score(pixels) for scorer in scorers)
        assert (ours.refusal is None) is (theirs.refusal is None), path.name
        if math.isnan(theirs.scores["brisque"]):
            continue
        niqe = pyiqas_niqe(pixels, ours.scores["niqe"], theirs.scores["niqe"])
        assert ours.scores["niqe"] == pytest.approx(niqe, abs=1e-3, nan_ok=True), path.name
        exact = brisque64(pixels)
        away = max(1e-3, abs(theirs.scores["brisque"] - exact))
        assert abs(ours.scores["brisque"] - exact) <= away, path.name
        for metric, bound in (("niqe", 5.5), ("brisque", 45.0)):
            assert (ours.scores[metric] <= bound) is (theirs.scores[metric] <= bound), path.name
        compared += 1
    assert compared


def test_what_has_no_statistics_is_refused_alike(scorers: tuple[FusedScorer, PyiqaScorer]) -> None:
    small = pictures()["texture"][:90, :90].copy()
    flat = np.full((300, 300, 3), 200, np.uint8)
    for scorer in scorers:
        refused = scorer.score(small)
        assert refused.refusal is not None and refused.refusal.reason is Reason.UNSCORABLE
        assert math.isnan(refused.scores["niqe"]) and math.isfinite(refused.scores["brisque"])
        refused = scorer.score(flat)
        assert refused.refusal is not None and refused.refusal.reason is Reason.FLAT


def test_tiny_pictures_have_a_brisque_where_pyiqa_gives_one(
    scorers: tuple[FusedScorer, PyiqaScorer], brisque64: Callable[[np.ndarray], float]
) -> None:
    noise = np.random.default_rng(6).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    for height, width in ((7, 50), (8, 7), (31, 9)):
        pixels = np.ascontiguousarray(noise[:height, :width])
        assert scorers[0].score(pixels).scores["brisque"] == pytest.approx(brisque64(pixels), abs=1e-3)
    for height, width in ((6, 50), (50, 3), (2, 2)):
        pixels = np.ascontiguousarray(noise[:height, :width])
        assert all(math.isnan(scorer.score(pixels).scores["brisque"]) for scorer in scorers)


@pytest.mark.slow
def test_an_engine_that_disagrees_with_pyiqa_does_not_start(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.scorers.fused.WINDOW", np.full(7, 1 / 7))
    with pytest.raises(ValueError, match="--engine pyiqa"):
        FusedScorer(resolve(METRICS, official)).setup()


@pytest.mark.parametrize("name", ["texture", "clipped", "dark", "crushed"])
def test_luma_is_pyiqas_but_for_ties(name: str) -> None:
    pixels = pictures()[name]
    theirs = to_y_channel(to_tensor(pixels, torch.device("cpu")), 255)[0, 0].numpy()
    apart = theirs != luma(pixels)
    assert np.all(np.abs(theirs - luma(pixels)) <= 1)
    assert not np.any(apart & (pixels.astype(int) @ [299, 587, 114] % 1000 != 500))


def test_luma_rounds_ties_as_float32_does() -> None:
    generator = np.random.default_rng(1)
    colours = generator.integers(0, 256, (300_000, 3))
    ties = colours[colours @ [299, 587, 114] % 1000 == 500].astype(np.uint8)[None]
    r, g, b = (ties[..., i].astype(np.float32) / np.float32(255) for i in range(3))
    exact = r * np.float32(0.299) + g * np.float32(0.587) + b * np.float32(0.114)
    assert np.array_equal(luma(ties), np.rint(exact * np.float32(255)))
    assert 0 < (luma(ties) % 2).mean() < 1  # some up, some down


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((8, 8), 1), ((9, 14), 1), ((11, 250), 1), ((BLOCK, BLOCK), 255), ((2 * BLOCK, 3 * BLOCK), 255)],
)
def test_halving_is_pyiqas_to_the_last_bit(shape: tuple[int, int], scale: int) -> None:
    from pyiqa.matlab_utils import imresize

    grey = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    theirs = imresize(torch.from_numpy(grey / scale)[None, None], scale=0.5, antialiasing=True)[0, 0].numpy() * scale
    assert np.array_equal(halved(grey, *shape, scale), theirs)
    padded = np.pad(grey, ((0, 5), (0, 3)))
    assert np.array_equal(halved(padded, *shape, scale), theirs)


def normalised(image: np.ndarray, mode: Literal["edge", "constant"]) -> np.ndarray:
    """MSCN as the papers write it, in float64."""
    window = np.outer(WINDOW, WINDOW)
    padded = np.pad(image.astype(np.float64), 3, mode=mode)
    mean, power = (scipy.signal.correlate2d(values, window, "valid") for values in (padded, padded**2))
    return (image - mean) / (np.sqrt(np.abs(power - mean**2)) + 1)


def summed(values: np.ndarray) -> np.ndarray:
    """(MAPS, SUMS) of a normalised picture or block, neighbours wrapped around it."""
    maps = [values, *(values * np.roll(values, shift, (0, 1)) for shift in ((0, 1), (1, 0), (1, 1), (1, -1)))]
    return np.array(
        [[(m < 0).sum(), (m > 0).sum(), (m[m < 0] ** 2).sum(), (m[m > 0] ** 2).sum(), np.abs(m).sum()] for m in maps]
    )


@pytest.mark.parametrize("shape", [(96, 96), (97, 193), (200, 120), (100, 2049), (96, 2050), (99, 2051), (98, 2115)])
def test_sums_are_those_of_the_papers_whatever_the_size(shape: tuple[int, int]) -> None:
    """Sizes around the columns that are filtered at a time, and crops that end at a border and before one."""
    grey = np.random.default_rng(3).normal(128, 60, shape).clip(0, 255).astype(np.uint8)
    height, width = (side // BLOCK * BLOCK for side in shape)
    cropped = normalised(grey[:height, :width], "edge")
    blocks = [
        summed(cropped[top : top + BLOCK, left : left + BLOCK])
        for left in range(0, width, BLOCK)  # down a column first
        for top in range(0, height, BLOCK)
    ]
    assert block_sums(grey, height, width, BLOCK, WINDOW) == pytest.approx(np.array(blocks), rel=1e-9)
    whole = summed(normalised(grey, "constant"))
    assert picture_sums(grey, WINDOW) == pytest.approx(whole, rel=1e-9)
    shared = shared_sums(grey, height, width, BLOCK, WINDOW)
    assert shared[0] == pytest.approx(np.array(blocks), rel=1e-9)
    assert shared[1] == pytest.approx(whole, rel=1e-9)
