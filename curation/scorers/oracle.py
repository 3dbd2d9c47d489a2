"""What the fused engine needs of torch and pyiqa, asked once, in a process that ends with the answer.

For one picture's scores and two small tables they would otherwise stay in every worker: 0.8 GB of 1.2. And once a
machine: the answer lies in the user's cache, for whoever asks the same of the same installation on the same processor.
Sixteen workers that start together wait for the one that asks.

    python -m curation.scorers.oracle FOLDER      # reads question.json and pixels.npy there, writes answer.npz
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from curation.scorers.pyiqa_scorer import PyiqaScorer
from curation.scorers.weights import WeightFile

_USERS_MISTAKE: Final = 2  # exit status
_INSTALLED: Final = ("pyiqa", "torch", "numpy", "scipy")  # that the answer may depend on
_ASKERS: Final = ("oracle.py", "pyiqa_scorer.py", "pyiqa_build.py")  # and of this project


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
    """What pyiqa makes of (H, W, 3) uint8 RGB with `weights`: as it once said on this machine, or asked now.

    Raises ValueError where it is asked and a weight file is missing or not the one of `resolve`, RuntimeError where the
    process fails.
    """
    metrics, folder = tuple(weights), _cache_folder()
    if folder is None:
        return _parsed(_asked(weights, pixels), metrics)
    kept = folder / f"{_digest(weights, pixels)}.npz"
    with _locked(kept.with_suffix(".lock")):
        return _known(kept, metrics) or _kept(_asked(weights, pixels), kept, metrics)


def _cache_folder() -> Path | None:
    """Where this user's answers are kept, by the XDG base directory specification; None for a home that can't be."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "million-ird" / "oracle"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def _digest(weights: Mapping[str, tuple[WeightFile, ...]], pixels: np.ndarray) -> str:
    """Of all that decides the answer; the processor too, since torch rounds by how wide its vectors are."""
    question = {
        "weights": {metric: [file.sha256 for file in files] for metric, files in weights.items()},
        "pixels": [*pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()],
        "installed": [sys.version, *(version(name) for name in _INSTALLED)],
        "askers": [hashlib.sha256(Path(__file__).with_name(name).read_bytes()).hexdigest() for name in _ASKERS],
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()


def _processor() -> list[str]:
    told = [platform.machine(), platform.processor()]
    with contextlib.suppress(FileNotFoundError):  # Linux alone has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told += [next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags")]
    return told


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        with contextlib.suppress(OSError):  # a full disk, a file system without locks: then several ask, and agree
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)  # until the file is closed
        yield


def _known(kept: Path, metrics: tuple[str, ...]) -> Answer | None:
    """None where it was never asked, or its file is broken."""
    try:
        return _parsed(kept.read_bytes(), metrics)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
        return None


def _kept(answer: bytes, kept: Path, metrics: tuple[str, ...]) -> Answer:
    parsed = _parsed(answer, metrics)
    whole = kept.with_suffix(".tmp")
    with contextlib.suppress(OSError):  # a full disk: the next one asks again
        whole.write_bytes(answer)
        whole.replace(kept)
    return parsed


def _asked(weights: Mapping[str, tuple[WeightFile, ...]], pixels: np.ndarray) -> bytes:
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
        return (Path(folder) / "answer.npz").read_bytes()


def _parsed(data: bytes, metrics: tuple[str, ...]) -> Answer:
    with np.load(io.BytesIO(data)) as answer:
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
