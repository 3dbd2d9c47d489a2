"""pyiqa's scores, the official ones where the official weights are, and a reason for every picture without one."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curation.records import Reason
from curation.scorers import PyiqaScorer, WeightMissing, WeightRefused, resolve
from curation.scorers.pyiqa_scorer import machines_fault
from tests.curation.scorers.conftest import NIMA_FILE, of_luma, pin, textured

IQA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "iqa"


@pytest.fixture
def scorer(weights_dir: Path) -> PyiqaScorer:
    scorer = PyiqaScorer(resolve(["niqe", "brisque"], weights_dir))
    scorer.setup()
    return scorer


@pytest.mark.skipif(not IQA.is_dir(), reason="LIVE's parameters are not here")
def test_official_weights_give_the_official_scores() -> None:
    weights = resolve(["niqe", "brisque"], IQA)
    assert all("LIVE" in file.origin for files in weights.values() for file in files)
    scorer = PyiqaScorer(weights)
    scorer.setup()
    # of the luma: ties between two levels are rounded as the processor likes, which moves NIQE by up to 3e-3
    names = ("I03", "I04", "I06", "I08", "I19")
    niqe = (15.6558, 3.6549, 3.2342, 3.1917, 9.0727)
    brisque = (94.644, -0.115, 1.075, 5.138, 66.835)
    for name, niqe_wanted, brisque_wanted in zip(names, niqe, brisque, strict=True):
        scored = scorer.score(of_luma(np.array(Image.open(IQA / "resultscalibra" / "dist_dir" / f"{name}.bmp"))))
        assert scored.refusal is None
        assert scored.scores["niqe"] == pytest.approx(niqe_wanted, abs=1e-3)
        assert scored.scores["brisque"] == pytest.approx(brisque_wanted, abs=1e-2)  # its sums are float32


def test_a_score_depends_on_the_picture_alone(scorer: PyiqaScorer, weights_dir: Path) -> None:
    pictures = [textured(200 + 30 * number, 220, number) for number in range(3)]
    forward = [scorer.score(picture) for picture in pictures]
    backward = [scorer.score(picture) for picture in reversed(pictures)]
    assert forward == backward[::-1]
    assert len({scored.scores["niqe"] for scored in forward}) == 3
    other = PyiqaScorer(resolve(["brisque", "niqe"], weights_dir))
    other = pickle.loads(pickle.dumps(other))
    other.setup()
    assert other.metrics == ("brisque", "niqe")
    assert [other.score(picture).scores for picture in pictures] == [scored.scores for scored in forward]


def test_a_flat_picture_is_flat_for_every_metric(scorer: PyiqaScorer) -> None:
    scored = scorer.score(np.full((256, 256, 3), 255, np.uint8))
    assert scored.refusal is not None and scored.refusal.reason is Reason.FLAT
    assert all(map(math.isnan, scored.scores.values()))


@pytest.mark.parametrize(("height", "width"), [(95, 400), (400, 95), (4, 4), (3, 1)])
def test_a_picture_too_small_is_unscorable_and_keeps_what_it_has(scorer: PyiqaScorer, height: int, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scored = scorer.score(noise)
    assert scored.refusal is not None and scored.refusal.reason is Reason.UNSCORABLE
    assert "niqe: a side is under 96 px" in scored.refusal.detail
    assert math.isnan(scored.scores["niqe"])
    assert math.isfinite(scored.scores["brisque"]) == (min(height, width) > 90)


def test_a_steep_ramp_has_no_statistics_and_says_so(scorer: PyiqaScorer) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (512, 512, 3))
    scored = scorer.score(ramp)
    assert scored.refusal is not None and scored.refusal.reason is Reason.UNSCORABLE
    assert scored.refusal.detail.startswith("niqe: no two blocks")


def test_want_of_memory_is_no_verdict_on_a_picture() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert machines_fault(caught.value)
    assert not machines_fault(RuntimeError("kernel size can't be greater than actual input size"))


def test_weights_altered_after_the_start_stop_the_worker(weights_dir: Path) -> None:
    scorer = PyiqaScorer(resolve(["niqe"], weights_dir))
    file = weights_dir / "niqe_modelparameters.mat"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(WeightRefused, match="start it again"):
        scorer.setup()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_the_users_mistake(weights_dir: Path) -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        PyiqaScorer(resolve(["niqe"], weights_dir), device="cuda").setup()


@pytest.mark.slow
def test_nima_needs_nothing_but_its_own_file(nima_dir: Path) -> None:
    pin(nima_dir)
    scorer = PyiqaScorer(resolve(["nima-vgg16-ava"], nima_dir))
    scorer.setup()
    score = scorer.score(textured(320, 400)).scores["nima-vgg16-ava"]
    saved = torch.load(nima_dir / NIMA_FILE)["params"]
    built = scorer._models["nima-vgg16-ava"].net.state_dict()
    assert saved.keys() == built.keys()
    assert all(torch.equal(saved[name], built[name]) for name in saved)
    assert 1 <= score <= 10


@pytest.mark.slow
def test_nimas_file_must_be_whole_and_the_one_its_name_says(nima_dir: Path) -> None:
    with pytest.raises(WeightRefused, match="altered"):
        resolve(["nima-vgg16-ava"], nima_dir)
    params = torch.load(nima_dir / NIMA_FILE)["params"]
    params.pop(next(iter(params)))
    torch.save({"params": params}, nima_dir / NIMA_FILE)
    pin(nima_dir)
    with pytest.raises(WeightRefused, match="no usable weights for nima-vgg16-ava"):
        resolve(["nima-vgg16-ava"], nima_dir)


def test_nima_without_a_file_names_the_file_not_the_backbone(tmp_path: Path) -> None:
    with pytest.raises(WeightMissing, match=NIMA_FILE):
        resolve(["nima-vgg16-ava"], tmp_path)
