"""What the fused engine needs of torch and pyiqa, asked once, in a process that ends with the answer.

For one picture's scores and two small tables they would otherwise stay in every worker: 0.8 GB of 1.2.

    python -m curation.scorers.oracle FOLDER      # reads question.json and pixels.npy there, writes answer.npz
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile

_USERS_MISTAKE: Final = 2  # exit status


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Shapes of a generalised Gaussian, ascending, and what its moments are by shape. (9801,) float64."""

    shapes: np.ndarray
    ratios: np.ndarray  # E|x|^2 / E[x^2], ascending (Lasmar et al. 2009, equation 8)
    inverse: np.ndarray  # E[x^2] / E|x|^2, ascending: of the shapes from the last to the first


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """pyiqa's scores of the picture, its table, and BRISQUE's (N,) coefficients of (N, 36) vectors where asked for."""

    scores: dict[str, float]
    tables: Tables
    coefficients: np.ndarray
    vectors: np.ndarray


def ask(weights: Mapping[str, tuple[WeightFile, ...]], pixels: np.ndarray) -> Answer:
    """Has pyiqa score (H, W, 3) uint8 RGB with `weights`.

    Raises ValueError where a weight file is missing or not the one of `resolve`, RuntimeError where the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="million-ird-oracle-") as folder:
        question = {metric: [[str(file.path), file.sha256] for file in files] for metric, files in weights.items()}
        (Path(folder) / "question.json").write_text(json.dumps(question))
        np.save(Path(folder) / "pixels.npy", pixels)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "curation.scorers.oracle", folder]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = ended.stderr.strip()
        if ended.returncode == _USERS_MISTAKE:
            raise ValueError(said)
        if ended.returncode:
            raise RuntimeError(f"pyiqa's check of the fused engine ended with {ended.returncode}: {said[-2000:]}")
        return _read(Path(folder) / "answer.npz", tuple(weights))


def _read(path: Path, metrics: tuple[str, ...]) -> Answer:
    with np.load(path) as answer:
        return Answer(
            scores=dict(zip(metrics, answer["scores"].tolist(), strict=True)),
            tables=Tables(shapes=answer["shapes"], ratios=answer["ratios"], inverse=answer["inverse"]),
            coefficients=answer["coefficients"],
            vectors=answer["vectors"],
        )


def _answer(folder: Path) -> None:
    asked = json.loads((folder / "question.json").read_text())
    weights = {
        metric: tuple(WeightFile(path=Path(path), sha256=sha256) for path, sha256 in files)
        for metric, files in asked.items()
    }
    scorer = PyiqaScorer(weights)
    scorer.setup()
    scores = scorer.score(np.load(folder / "pixels.npy")).scores
    tables = _tables()
    coefficients, vectors = _brisque_parameters(weights["brisque"][0].path) if "brisque" in weights else _NONE
    np.savez(
        folder / "answer.npz",
        scores=np.array([scores[metric] for metric in weights]),
        shapes=tables.shapes,
        ratios=tables.ratios,
        inverse=tables.inverse,
        coefficients=coefficients,
        vectors=vectors,
    )


_NONE: Final = (np.empty(0), np.empty((0, 36)))


def _tables() -> Tables:
    """Made by torch, as pyiqa's: which float32 it rounds a shape to depends on how wide this CPU's vectors are.

    One rounding off now and then changes which entry is nearest, and the NIQE of a picture of 15 blocks by 7e-4.
    """
    import torch

    shapes = torch.arange(0.2, 10 + 0.001, 0.001, dtype=torch.float32).double()
    first, second, third = (torch.lgamma(moment / shapes) for moment in (1, 2, 3))
    ratios, inverse = (2 * second - (first + third)).exp(), (first + third - 2 * second).exp().flip(0)
    return Tables(shapes=shapes.numpy(), ratios=ratios.numpy(), inverse=inverse.numpy())


def _brisque_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import torch

    coefficients, vectors = torch.load(path, map_location="cpu", weights_only=True)
    return coefficients.double().numpy(), vectors.double().numpy()


if __name__ == "__main__":
    try:
        _answer(Path(sys.argv[1]))
    except ValueError as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(_USERS_MISTAKE)
