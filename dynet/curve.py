"""The loss of every step, as Parquet files in a store: `curve/000000001-000001000.parquet`.

Each is written just before the checkpoint after its last step, so that a resumed run has every step once and equals an
undisturbed one's to the byte. Points behind the last piece lie in an interim checkpoint, where there is one.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.store import Store

FOLDER: Final = "curve/"
_PIECE: Final = re.compile(re.escape(FOLDER) + r"(\d+)-(\d+)\.parquet")
SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("depth", pa.string()),
        ("loss", pa.float64()),
        ("norm", pa.float64()),
        ("taken", pa.bool_()),
        ("samples", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One step. `samples`: a sum of hashes of all ranks' samples, which tells whether two runs had the same batch."""

    step: int
    depth: str
    loss: float
    norm: float
    taken: bool
    samples: int


def write(store: Store, points: Sequence[Point]) -> None:
    """Puts the points of steps that follow one another there."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(point) for point in points], schema=SCHEMA), sink)
    store.write(f"{FOLDER}{points[0].step:09d}-{points[-1].step:09d}.parquet", sink.getvalue())


def read(store: Store) -> pa.Table:
    """All points, ascending by step."""
    names = [name for name in store.list(FOLDER) if _PIECE.fullmatch(name)]
    pieces = [pq.read_table(io.BytesIO(store.read(name)), schema=SCHEMA) for name in names]
    return pa.concat_tables([SCHEMA.empty_table(), *pieces]).sort_by("step")


def by_depth(points: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each depth the steps that were taken, (n,) int64, and their losses, (n,) float64; the most frequent first."""
    taken = points.filter(points["taken"])
    counts = Counter(taken["depth"].to_pylist())
    parts = {depth: taken.filter(pc.equal(taken["depth"], depth)) for depth, _ in counts.most_common()}
    return {depth: (part["step"].to_numpy(), part["loss"].to_numpy()) for depth, part in parts.items()}


def ends(points: pa.Table, share: float = 0.1) -> dict[str, tuple[float, float]]:
    """For each depth the mean loss of the first and of the last `share` of its steps."""
    found = {}
    for depth, (_, losses) in by_depth(points).items():
        count = max(1, round(share * len(losses)))
        found[depth] = (float(losses[:count].mean()), float(losses[-count:].mean()))
    return found


def cut(store: Store, step: int) -> None:
    """Takes away what goes beyond `step`, where a run goes on."""
    for name in list(store.list(FOLDER)):
        piece = _PIECE.fullmatch(name)
        if piece and int(piece[2]) > step:
            store.delete(name)
