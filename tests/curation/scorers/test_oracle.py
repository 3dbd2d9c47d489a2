"""What the fused engine asks pyiqa for comes from another process, and leaves nothing of torch behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.scorers import PyiqaScorer, resolve
from curation.scorers.oracle import ask
from tests.curation.scorers.conftest import textured


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_answer_is_pyiqas(weights_dir: Path) -> None:
    weights = resolve(("niqe", "brisque"), weights_dir)
    pixels = textured(200, 300)
    answer = ask(weights, pixels)
    scorer = PyiqaScorer(weights)
    scorer.setup()
    assert answer.scores == scorer.score(pixels).scores
    assert (answer.coefficients.shape, answer.vectors.shape) == ((1,), (1, 36))
    for table in (answer.tables.shapes, answer.tables.ratios, answer.tables.inverse):
        assert len(table) == 9801 and np.all(np.diff(table) > 0)


@pytest.mark.slow
def test_a_machine_is_asked_once(weights_dir: Path, cache: Path) -> None:
    weights, pixels = resolve(("niqe",), weights_dir), textured(200, 300)
    first = ask(weights, pixels)
    (weights_dir / "niqe_modelparameters.mat").unlink()  # whoever asks anew needs it
    again = ask(weights, pixels)
    assert again.scores == first.scores
    assert np.array_equal(again.tables.ratios, first.tables.ratios)
    with pytest.raises(ValueError):
        ask(weights, textured(200, 301))
    for kept in cache.rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(ValueError):
        ask(weights, pixels)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_costs_a_question_and_no_more(
    weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert np.isfinite(ask(resolve(("niqe",), weights_dir), textured(200, 300)).scores["niqe"])


@pytest.mark.slow
def test_altered_weights_are_the_same_sentence_as_without_a_process(weights_dir: Path) -> None:
    weights = resolve(("niqe",), weights_dir)
    with (weights_dir / "niqe_modelparameters.mat").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is not the file that the job started with"):
        ask(weights, textured(200, 300))


@pytest.mark.slow
def test_a_worker_that_scores_by_niqe_and_brisque_has_no_torch_in_memory(weights_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from curation.scorers import Panel; from curation.scorers.weights import WeightFile; import hashlib\n"
        "files = {'niqe': 'niqe_modelparameters.mat', 'brisque': 'brisque_svm_weights.pth'}\n"
        "paths = {metric: Path(sys.argv[1]) / name for metric, name in files.items()}\n"
        "panel = Panel({m: (WeightFile(path=p, sha256=hashlib.sha256(p.read_bytes()).hexdigest()),)"
        " for m, p in paths.items()})\n"
        "panel.setup()\n"
        "assert len(panel.score(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).scores) == 2\n"
        "print(sorted({'torch', 'pyiqa'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(weights_dir)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
