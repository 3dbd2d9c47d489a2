"""The paper's Table 5 in small: does pre-training help, and both depths? As large as a budget of time allows.

python jobs/ablation.py demo-out/store --tests DIR --budget 30 --out ablation
python jobs/ablation.py s3://bucket/million-ird --tests DIR --budget 30 --out ablation --device cuda \
    --width 48 --crop 128 --batch 32 --precision bf16 --workers 12 --pictures 68
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dynet import curve, pictures
from dynet.loop import Stopped
from dynet.model import ModelConfig
from jobs import terminal
from pipelines import ablation_table
from pipelines.ablation import PRETRAINED, AblationJob, Findings, ablate
from shards.store import LocalStore

PROGRAM = "jobs/ablation.py"
TABLE = "table.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _ablation(flags), again="begins anew, with another --out")


def _ablation(flags: argparse.Namespace) -> None:
    job = AblationJob(
        store=flags.store,
        tests=flags.tests,
        out=flags.out,
        minutes=flags.budget,
        model=ModelConfig(width=flags.width),
        held_out=tuple(flags.held_out),
        crop=flags.crop,
        batch=flags.batch,
        lr=flags.lr,
        precision=flags.precision,
        device=flags.device,
        workers=flags.workers,
        seeds=flags.seeds,
        pictures=flags.pictures,
        endpoint_url=flags.endpoint_url,
    )
    bars = _Bars()
    try:
        findings = ablate(job, bars)
    except Stopped as where:
        raise terminal.Terminated(str(where)) from where
    finally:
        bars.close()
    _report(job, findings)


class _Bars:
    """A bar for each stage, one after the other."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: terminal.Bar | None = None

    def __call__(self, stage: str, total: int, done: int) -> None:
        if stage != self._stage or self._bar is None:
            self.close()
            self._stage, self._bar = stage, terminal.Bar(stage, "step")
        self._bar(total, done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _report(job: AblationJob, findings: Findings) -> None:
    text = ablation_table.markdown(findings)
    (job.out / TABLE).write_text(text, "utf-8")
    lines = {}
    for arm in findings.rows:
        if arm.seed == 0:
            table = curve.read(LocalStore(job.out / arm.folder))
            lines[f"{arm.depth} {arm.start}"] = curve.by_depth(table)[arm.depth]
    (job.out / "finetuning.png").write_bytes(pictures.png(pictures.curves(lines)))
    before = curve.by_depth(curve.read(LocalStore(job.out / PRETRAINED)))
    (job.out / "pretraining.png").write_bytes(pictures.png(pictures.curves(before)))
    print(text, end="")
    print(f"{terminal.duration(findings.seconds)}; {job.out}/{TABLE}, pretraining.png, finetuning.png")


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Pre-trains on a set, fine-tunes S and L with and without that for the same number of steps, and evaluates:\n"
        "noise on clean pictures, rain and haze. Test pictures that are in the set end it before it begins.",
        "python jobs/ablation.py demo-out/store --tests DIR --budget 30 --out ablation",
    )
    parser.add_argument("store", metavar="STORE", help="the set: a folder, http(s)://… or s3://bucket/prefix")
    parser.add_argument("--tests", type=Path, required=True, metavar="DIR", help="holds cbsd68/, rain/*/ and haze/*/")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made, empty or new")
    parser.add_argument("--budget", type=float, required=True, metavar="MINUTES", help="for all of it, about")
    parser.add_argument("--width", type=int, default=16, help="channels of level 1 (default 16; the paper's 48)")
    parser.add_argument("--crop", type=int, default=64, help="pixels a side (default 64; the paper's 128)")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step (default 8; the paper's 32)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate of both trainings (default 1e-3)")
    parser.add_argument("--precision", default="f32", help="f32 (default), bf16 or f16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that read (default 1)")
    parser.add_argument("--seeds", type=int, default=3, help="fine-tunings of each kind (default 3)")
    parser.add_argument("--pictures", type=int, default=12, help="of each test set at most (default 12)")
    parser.add_argument(
        "--held-out", type=int, nargs="+", default=[0], metavar="SHARD", help="shards to fine-tune on (default 0)"
    )
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
