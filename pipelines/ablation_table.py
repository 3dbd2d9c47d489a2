"""What an ablation found, as a table: means over seeds, and what pre-training changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dynet.published import Column
from dynet.results import Row
from pipelines.ablation import DEPTHS, WITH, WITHOUT, Arm, Findings

AVERAGE: Final = "average"
HEAD: Final = "network"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """PSNR in dB and SSIM, means over seeds; `spread`: the standard deviation of the PSNR over seeds."""

    psnr: float
    ssim: float
    spread: float


def figures(rows: Mapping[Arm, Sequence[Row]]) -> dict[tuple[str, str], dict[str, Figure]]:
    """By depth and start, then by column; the average is over columns, as in the paper."""
    found: dict[tuple[str, str], dict[str, Figure]] = {}
    for depth in DEPTHS:
        for start in (WITHOUT, WITH):
            seeds = _of_seeds(rows, depth, start)
            found[depth, start] = {name: _figure([one[name] for one in seeds]) for name in seeds[0]}
    return found


def gains(rows: Mapping[Arm, Sequence[Row]]) -> dict[str, dict[str, Figure]]:
    """By depth and column: with pre-training less without, seed by seed."""
    found: dict[str, dict[str, Figure]] = {}
    for depth in DEPTHS:
        with_, without = (
            [
                _columns(rows[arm])
                for arm in sorted(rows, key=lambda arm: arm.seed)
                if (arm.depth, arm.start) == (depth, s)
            ]
            for s in (WITH, WITHOUT)
        )
        found[depth] = {
            name: _figure([one[name] - other[name] for one, other in zip(with_, without, strict=True)])
            for name in with_[0]
        }
    return found


def markdown(findings: Findings) -> str:
    """The table, a line a network, and below it what was gained."""
    made, gained = figures(findings.rows), gains(findings.rows)
    columns = list(next(iter(made.values())))
    lines = [f"| {HEAD} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    first = next(iter(findings.rows.values()))
    lines.append(
        _line("input", {name: _figure([value]) for name, value in _columns(first, before=True).items()}, columns)
    )
    lines += [_line(f"{depth} {start}", one, columns) for (depth, start), one in made.items()]
    lines += [_line(f"{depth} gained", one, columns, sign="+") for depth, one in gained.items()]
    seeds = len({arm.seed for arm in findings.rows})
    told = (
        f"PSNR in dB (± its standard deviation over {seeds} seeds) / SSIM.",
        f"{findings.pretraining} steps of pre-training, {findings.finetuning} of fine-tuning each network,",
        f"on {findings.trained_on} clean pictures.",
    )
    lines += ["", " ".join(told)]
    return "\n".join(lines) + "\n"


def _of_seeds(rows: Mapping[Arm, Sequence[Row]], depth: str, start: str) -> list[dict[str, np.ndarray]]:
    """The means of each seed, in the order of the seeds."""
    arms = [arm for arm in sorted(rows, key=lambda arm: arm.seed) if (arm.depth, arm.start) == (depth, start)]
    return [_columns(rows[arm]) for arm in arms]


def _columns(rows: Sequence[Row], before: bool = False) -> dict[str, np.ndarray]:
    """(2,) mean PSNR and SSIM of each column, and of all columns."""
    names: dict[Column, list[tuple[float, float]]] = {}
    for row in rows:
        one = row.before if before else row.quality
        names.setdefault(row.column, []).append((one.psnr, one.ssim))
    found = {str(column): np.mean(values, axis=0) for column, values in names.items()}
    return {**found, AVERAGE: np.mean(list(found.values()), axis=0)}


def _figure(values: Sequence[np.ndarray]) -> Figure:
    psnr, ssim = np.mean(values, axis=0)
    return Figure(psnr=float(psnr), ssim=float(ssim), spread=float(np.std([one[0] for one in values])))


def _line(name: str, found: Mapping[str, Figure], columns: Sequence[str], sign: str = "") -> str:
    cells = []
    for column in columns:
        one = found[column]
        spread = f" ± {one.spread:.2f}" if one.spread else ""
        cells.append(f"{one.psnr:{sign}.2f}{spread} / {one.ssim:{sign}.3f}")
    return f"| {name} | {' | '.join(cells)} |"
