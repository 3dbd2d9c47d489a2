"""The scorer as it travels: names and hashes to every worker, weight files by way of the store.

The weights that scored a store are kept in it (`weights/`): a worker on another machine takes them from there, and
whoever judges the scores later has what they came from.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from curation.scorers import Panel, WeightFile, fused, nima
from curation.scorers.catalog import OWN
from pipelines.cluster import gpu_share, memory, workers
from shards.store import Store

FOLDER: Final = "weights/"
_DIGITS: Final = 16  # of its SHA-256, before a file's own name
#: Peak memory of decoding and scoring by engine. pyiqa's NIQE takes 10.7 GB for 22 megapixels; fused adds 6 bytes to a
#: picture that took 10 to decode, and some formats take more.
BYTES_PER_PIXEL: Final = {"fused": 30.0, "pyiqa": 490.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSpec:
    """Metrics, in the ledger's order, each with its weight files. Small, hashable, the same on every machine."""

    weights: tuple[tuple[str, tuple[WeightFile, ...]], ...]
    engine: str  # of `curation.scorers.ENGINES`

    @staticmethod
    def of(weights: Mapping[str, tuple[WeightFile, ...]], engine: str) -> ScorerSpec:
        """From what `curation.scorers.resolve` found."""
        return ScorerSpec(weights=tuple(weights.items()), engine=engine)

    @property
    def bytes_per_pixel(self) -> float:
        """Peak memory of scoring one picture; of metrics that only pyiqa has as much as of its NIQE."""
        ours = {*fused.METRICS, *nima.METRICS, *OWN}
        return BYTES_PER_PIXEL[self.engine if all(metric in ours for metric, _ in self.weights) else "pyiqa"]

    @property
    def has_networks(self) -> bool:
        """Whether any metric gains by a GPU."""
        return self.on_cores != self

    @property
    def on_cores(self) -> ScorerSpec:
        """The metrics that gain nothing by a GPU."""
        kept = tuple(one for one in self.weights if one[0] in fused.METRICS or one[0] in OWN)
        return ScorerSpec(weights=kept, engine=self.engine)

    @property
    def digests(self) -> dict[str, str]:
        """Metric -> SHA-256 of its weight file (of their digests, where it has several; empty for none)."""
        return {metric: _digest(files) for metric, files in self.weights}


def passes(spec: ScorerSpec) -> tuple[ScorerSpec, ...]:
    """By what a batch is scored, one task after the other.

    One task, but where some nodes have a GPU and some don't: then what gains nothing by it is computed first, anywhere,
    and what still stands goes to those that have one, encoded, to be decoded there again.
    """
    has_gpu = [bool(node.get("GPU")) for node in workers()]
    if spec.has_networks and spec.on_cores.weights and any(has_gpu) and not all(has_gpu):
        return spec.on_cores, spec
    return (spec,)


def needs(spec: ScorerSpec, pixels: int) -> dict[str, Any]:
    """What a Ray task that scores pictures of up to `pixels` asks its node for: its `options`."""
    share = min(1.0, gpu_share()) if spec.has_networks else 0.0
    return {"memory": memory(spec.bytes_per_pixel * pixels, on_gpu=share > 0), "num_gpus": share}


def publish(store: Store, spec: ScorerSpec) -> None:
    """Puts the weight files into the store, those that are not there yet."""
    for _, files in spec.weights:
        for file in files:
            if not store.exists(_name(file)):
                store.write(_name(file), file.path)


@functools.lru_cache(maxsize=2)
def ready_panel(store: Store, spec: ScorerSpec) -> Panel:
    """The scorers with their models built, once per process: those of both `passes`, where it gets both.

    Raises ValueError for a weight that is not the one named.
    """
    weights = {metric: tuple(_here(store, file) for file in files) for metric, files in spec.weights}
    panel = Panel(weights, spec.engine, _device() if spec.has_networks else "cpu")
    panel.setup()
    return panel


def collect(store: Store, folder: Path) -> None:
    """Puts the weight files that scored this store into `folder`, under the names that `resolve` looks for."""
    for name in store.list(FOLDER):
        (folder / name.removeprefix(FOLDER)[_DIGITS + 1 :]).write_bytes(store.read(name))


def _device() -> str:
    """The GPU that Ray gave this worker, or else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _here(store: Store, file: WeightFile) -> WeightFile:
    """The weight file on this machine: where it was found, or else a copy from the store."""
    if file.path.is_file():
        return file
    folder = Path(tempfile.mkdtemp(prefix="million-ird-weights-"))
    copy = folder / file.path.name
    copy.write_bytes(store.read(_name(file)))
    return WeightFile(path=copy, sha256=file.sha256)


def _name(file: WeightFile) -> str:
    return f"{FOLDER}{file.sha256[:_DIGITS]}-{file.path.name}"


def _digest(files: tuple[WeightFile, ...]) -> str:
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest() if files else ""
