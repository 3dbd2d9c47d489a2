"""`dynet-filter calibrate`: thresholds from pictures known to be good and bad, or from a ledger, with the evidence.

dynet-filter calibrate --good photos/ --bad rejects/ --degrade --weights weights/ --out calibration
dynet-filter calibrate --ledger million-ird --yield 0.02 --out calibration
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from curation import ledger
from curation.calibrate import (
    LedgerScores,
    Metric,
    check_share,
    confusion,
    costs,
    evidence,
    for_pass_rate,
    for_yield,
    from_ledger,
    passes,
)
from curation.degradations import FOR_CALIBRATION
from curation.judge import MetricThreshold
from curation.report.calibration import Findings, page
from curation.report.parts import share
from curation.scorers import ENGINES, lower_better, resolve
from jobs import terminal
from pipelines import claims, recipes
from pipelines.calibrate import CalibrateJob, misjudged, score_folders, to_parquet
from pipelines.recipes import FilterRecipe
from pipelines.scoring import ScorerSpec
from shards.store import Store, open_store

PROGRAM: Final = "dynet-filter"
RECIPE: Final = "recipe.json"
PAGE: Final = "calibration.html"
SCORES: Final = "scores.parquet"
DEFAULT_PASS_RATE: Final = 0.9
DEFAULT_YIELD: Final = 0.02  # the paper kept 2 M of 100 M links


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _calibrate(flags), again="begins anew")


def _calibrate(flags: argparse.Namespace) -> None:
    _check_flags(flags)
    out = terminal.out_store(flags.out, flags.endpoint_url)
    if next(iter(out.list("")), None) is not None:
        raise ValueError(f"{out.root} is not empty: give a new --out, so that nothing is overwritten")
    if flags.ledger:
        _by_yield(flags, out)
    else:
        _by_pass_rate(flags, out)
    print(f"recipe: {out.root}/{RECIPE}  page: {out.root}/{PAGE}")


def _check_flags(flags: argparse.Namespace) -> None:
    folders = flags.good is not None and flags.bad is not None
    if folders == (flags.ledger is not None) or (flags.good is None) != (flags.bad is None):
        raise ValueError("give --good and --bad, two folders of pictures, or else --ledger, a store")
    if flags.yield_ is not None and folders:
        raise ValueError("--yield is a share of a list: give --ledger, or a --pass-rate of the good pictures")
    if flags.pass_rate is not None and not folders:
        raise ValueError("--pass-rate is a share of good pictures, which a ledger can't tell: give a --yield")
    if flags.degrade and not folders:
        raise ValueError("--degrade makes bad pictures of good ones: give --good and --bad")
    scoring = {name: getattr(flags, name) for name in ("weights", "engine", "min_res", "max_pixels")}
    if not folders and (idle := [name for name, said in scoring.items() if said is not None]):
        raise ValueError(f"--{idle[0].replace('_', '-')} is for scoring folders: a ledger is taken as it was scored")
    check_share(_wished(flags), "pass rate" if folders else "yield")


def _wished(flags: argparse.Namespace) -> float:
    """The share that is to pass."""
    said, default = (flags.yield_, DEFAULT_YIELD) if flags.ledger else (flags.pass_rate, DEFAULT_PASS_RATE)
    return default if said is None else float(said)


def _by_pass_rate(flags: argparse.Namespace, out: Store) -> None:
    base = recipes.laion_hr()
    metrics = tuple(map(_metric, terminal.names(flags.metrics) if flags.metrics else base.metrics))
    held = _held(flags, metrics)
    job = _job(flags, base, metrics)
    with terminal.Bar("calibrate", "file") as bar:
        gathered = score_folders(job, bar)
    for one in gathered.left_out:
        print(f"not scored: {one.name} ({one.why})")
    scores = gathered.table(metrics)
    bounds = for_pass_rate(scores, _wished(flags), held)
    prices = costs(scores, bounds)
    at = [price.metric for price in prices]
    bounds = tuple(sorted(bounds, key=lambda one: at.index(one.metric)))
    found = Findings(
        wish=f"{share(_wished(flags), 1)} of the good pictures",
        thresholds=bounds,
        lines=tuple(confusion(scores, bounds)),
        costs=tuple(prices),
        folders=scores,
        refused=tuple(misjudged(gathered, metrics, bounds, good=True)),
        passed=tuple(misjudged(gathered, metrics, bounds, good=False)),
        left_out=tuple((one.name, one.why) for one in gathered.left_out),
    )
    out.write(SCORES, to_parquet(gathered, metrics))
    _write(out, _recipe(base, job), found)
    _print(found)


def _by_yield(flags: argparse.Namespace, out: Store) -> None:
    store = open_store(flags.ledger, flags.endpoint_url)
    if next(ledger.units(store), None) is None:
        raise ValueError(f"{store.root} has no ledger: run dynet-filter with --out {store.root} first")
    base, scored = claims.recipe(store), claims.weights(store)
    names = terminal.names(flags.metrics) if flags.metrics else base.metrics
    if unknown := [name for name in names if name not in scored]:
        raise ValueError(f"{store.root} has no scores of {', '.join(unknown)}: it has {', '.join(scored)}")
    metrics = tuple(map(_metric, names))
    held = _held(flags, metrics)
    known = from_ledger(store, metrics)
    bounds = _yielding(known, _wished(flags), held)
    found = Findings(
        wish=f"{share(_wished(flags), 1)} of the ledger's rows",
        thresholds=bounds,
        lines=(known.line(bounds),),
        ledger=known,
    )
    _write(out, replace(base, cascade=True), found)  # a store to calibrate by may have been made without
    _print(found)
    print(f"left out: {known.unscored} rows that no metric saw, {known.partly} with some of the metrics alone")


def _yielding(known: LedgerScores, wish: float, held: Sequence[MetricThreshold]) -> tuple[MetricThreshold, ...]:
    try:
        return for_yield(known.scores, wish, known.rows, held)
    except ValueError as error:
        if not known.partly:
            raise
        more = f"{known.partly} rows have some of the metrics alone: --no-cascade scores all that is large enough"
        raise ValueError(f"{error} ({more})") from error


def _metric(name: str) -> Metric:
    return Metric(name=name, lower_better=lower_better(name))


def _held(flags: argparse.Namespace, metrics: Sequence[Metric]) -> list[MetricThreshold]:
    """The bounds that the user gave."""
    known = {metric.name: metric for metric in metrics}
    said = dict(map(terminal.threshold, flags.threshold))
    if idle := [name for name in said if name not in known]:
        raise ValueError(f"--threshold {idle[0]}={said[idle[0]]:g}: the metrics are {', '.join(known)}")
    return [
        MetricThreshold(metric=name, bound=bound, lower_better=known[name].lower_better) for name, bound in said.items()
    ]


def _job(flags: argparse.Namespace, base: FilterRecipe, metrics: tuple[Metric, ...]) -> CalibrateJob:
    weights = resolve([metric.name for metric in metrics], flags.weights)
    return CalibrateJob(
        good=flags.good,
        bad=flags.bad,
        metrics=metrics,
        scoring=ScorerSpec.of(weights, flags.engine or base.engine),
        degradations=FOR_CALIBRATION if flags.degrade else (),
        min_res=base.thresholds.min_res if flags.min_res is None else flags.min_res,
        max_pixels=base.max_pixels if flags.max_pixels is None else flags.max_pixels,
    )


def _recipe(base: FilterRecipe, job: CalibrateJob) -> FilterRecipe:
    """The base with what the pictures were held against."""
    thresholds = replace(base.thresholds, min_res=job.min_res)
    return replace(base, engine=job.scoring.engine, max_pixels=job.max_pixels, thresholds=thresholds)


def _write(out: Store, base: FilterRecipe, found: Findings) -> None:
    """The page, then the recipe: who finds a recipe finds its evidence."""
    recipe = replace(base, thresholds=replace(base.thresholds, metrics=found.thresholds))
    said = {"passes": passes(found.lines)} | ({} if found.folders is None else evidence(found.folders, found.costs))
    out.write(PAGE, page(found))
    text = {"recipe": recipe.to_dict(), "calibration": {"wish": found.wish, **said}}
    out.write(RECIPE, json.dumps(text, indent=1).encode())


def _print(found: Findings) -> None:
    print(f"bounds that {found.wish} pass: {'; '.join(map(str, found.thresholds))}")
    metrics = [one.metric for one in found.thresholds]
    rows = [
        (
            f"{line.group}{' (good)' if line.good else ''}",
            line.pictures,
            *(share(line.passing[metric], line.pictures) for metric in metrics),
            share(line.together, line.pictures),
        )
        for line in found.lines
    ]
    print(terminal.table(("group", "pictures", *metrics, "all"), rows))


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        f"{PROGRAM} calibrate",
        "Thresholds that a wished share of good pictures, or of a ledger, passes, and what else they let\n"
        f"through. Writes {RECIPE} (for dynet-filter --recipe), {PAGE} and {SCORES}.",
        f"{PROGRAM} calibrate --good photos/ --bad rejects/ --degrade --out calibration",
    )
    parser.add_argument("--good", type=Path, help="folder of pictures that the filter should keep")
    parser.add_argument("--bad", type=Path, help="folder of pictures that it should refuse")
    parser.add_argument("--ledger", metavar="STORE", help="instead of folders: what dynet-filter has scored")
    parser.add_argument(
        "--pass-rate", type=float, metavar="SHARE", help="share of the good pictures that passes (default 0.9)"
    )
    parser.add_argument(
        "--yield", type=float, dest="yield_", metavar="SHARE", help="share of the ledger's rows kept (default 0.02)"
    )
    parser.add_argument("--degrade", action="store_true", help="also against degraded copies of the good pictures")
    parser.add_argument("--out", required=True, help="a new folder or s3://bucket/prefix")
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--metrics", help="comma-separated (default: the recipe's)")
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="METRIC=NUMBER", help="a bound to keep; the others are set"
    )
    parser.add_argument("--weights", type=Path, help="folder with the metrics' weights (else pyiqa's cache)")
    parser.add_argument("--engine", choices=ENGINES, help="who computes the metrics (default fused)")
    parser.add_argument("--min-res", type=int, help="both sides, pixels: smaller ones are left out (default 1024)")
    parser.add_argument("--max-pixels", type=int, help="larger pictures are left out")
    return parser
