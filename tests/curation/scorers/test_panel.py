"""One interface for all metrics: who computes what, in which order, and how far."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from curation.judge import JPEG_QUALITY
from curation.scorers import Panel, PyiqaScorer, check_metrics, known_metrics, lower_better, resolve
from curation.scorers.detectors import DETECTORS
from tests.curation.scorers.conftest import NIMA_FILE, pin, textured, write_nima, write_weights

METRICS = ("uniform_border", "brisque", JPEG_QUALITY, "niqe", "nima-vgg16-ava")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of all metrics here."""
    made = write_weights(tmp_path_factory.mktemp("panel") / "weights")
    shutil.copy(write_nima(made.parent / "nima") / NIMA_FILE, made)
    pin(made)
    return made


@pytest.fixture(scope="module")
def panel(folder: Path) -> Panel:
    made = Panel(resolve(METRICS, folder))
    made.setup()
    return made


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [np.ascontiguousarray(textured(260 + 20 * n, 300)) for n in range(3)]


def test_every_part_gives_its_own_scores(panel: Panel, pictures: list[np.ndarray], folder: Path) -> None:
    assert panel.metrics == ("uniform_border", "brisque", "niqe", "nima-vgg16-ava")
    scores = panel.score(pictures[0]).scores
    assert tuple(scores) == panel.metrics
    alone = PyiqaScorer(resolve(("niqe",), folder))
    alone.setup()
    assert scores["niqe"] == pytest.approx(alone.score(pictures[0]).scores["niqe"], abs=1e-3)
    border = DETECTORS["uniform_border"].measure(pictures[0])
    assert scores["uniform_border"] == pytest.approx(border, abs=1e-6)


def test_metrics_that_want_many_pictures_wait_for_them(panel: Panel, pictures: list[np.ndarray]) -> None:
    assert panel.one_by_one(METRICS) == ("uniform_border", "brisque", "niqe")
    assert panel.reduced(pictures[0], ("niqe", "brisque")) is None
    reduced = [panel.reduced(one, METRICS) for one in pictures]
    assert all(one is not None and set(one) == {"nima-vgg16-ava"} for one in reduced)
    together = panel.score_reduced([one or {} for one in reduced])
    for picture, scored in zip(pictures, together, strict=True):
        alone = panel.score(picture, ("nima-vgg16-ava",)).scores
        assert scored.scores == pytest.approx(alone, abs=1e-4)
    assert [one.scores for one in panel.score_reduced([{}, reduced[1] or {}])] == [
        {},
        pytest.approx(together[1].scores, abs=1e-4),
    ]


def test_the_order_is_the_callers_and_it_stops_where_told(panel: Panel, pictures: list[np.ndarray]) -> None:
    asked: list[str] = []

    def stands(metric: str, score: float) -> bool:
        asked.append(metric)
        return metric != "brisque"

    scored = panel.score(pictures[0], ("niqe", "brisque", "uniform_border"), stands)
    assert asked == list(scored.scores) == ["niqe", "brisque"]
    assert scored.refusal is None


def test_own_metrics_are_known_beside_pyiqas() -> None:
    for name, detector in DETECTORS.items():
        assert name in known_metrics()
        assert lower_better(name) is detector.lower_better
    assert not lower_better(JPEG_QUALITY)
    with pytest.raises(ValueError, match="named twice"):
        check_metrics(("niqe", "upscaling", "upscaling"))
    with pytest.raises(ValueError, match="did you mean"):
        check_metrics(("niqee",))


@pytest.mark.parametrize(("said", "meant"), [("upscalling", "upscaling"), ("jpeg-quality", JPEG_QUALITY)])
def test_a_misspelt_own_metric_is_suggested(said: str, meant: str) -> None:
    for check in (lambda: check_metrics((said,)), lambda: lower_better(said)):
        with pytest.raises(ValueError, match=f"did you mean {meant}"):
            check()
