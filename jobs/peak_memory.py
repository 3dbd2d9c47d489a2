"""What scoring one picture adds to a process, printed as JSON: `jobs/bench_score.py` starts this once per engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from curation.scorers import FusedScorer, PyiqaScorer, Scorer, resolve

METRICS = ("niqe", "brisque")


def main(engine: str, picture: Path, folder: Path | None) -> None:
    """`picture` is a .npy of (H, W, 3) uint8; prints bytes: "before" it was read, and the "peak" since then."""
    weights = resolve(METRICS, folder)
    scorer: Scorer = FusedScorer(weights) if engine == "fused" else PyiqaScorer(weights)
    scorer.setup()
    scorer.score(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))  # compiles, allocates
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: building the models has one of its own
    scorer.score(np.load(picture))
    print(json.dumps({"before": before, "peak": _status("VmHWM")}))


def _status(name: str) -> int:
    """From /proc: `ru_maxrss` would be the parent's where that one was larger when it started this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
