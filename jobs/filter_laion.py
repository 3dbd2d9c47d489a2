"""`dynet-filter`: URL lists to kept originals, a ledger, and 512x512 patch shards.

python jobs/filter_laion.py --urls laion_hr.parquet --out STORE
ray job submit --working-dir . -- python jobs/filter_laion.py --urls s3://b/list.parquet --out s3://b/set
dynet-filter judge --threshold niqe=4.5 --out STORE
dynet-filter calibrate --good DIR --bad DIR --out DIR
dynet-filter fit --good DIR --out WEIGHTS
dynet-filter status STORE
dynet-filter plan --urls LIST --pilot 5000 --for STORE
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from curation.fetch import FetchSettings
from curation.fit import fit
from curation.judge import Thresholds
from curation.records import Reason
from curation.scorers import ENGINES, resolve
from curation.settle import Changes
from jobs import calibrate, metered, plan, status, terminal
from jobs.shard import add_shard_flags, shard_and_report, shard_recipe
from pipelines import claims, recipes, unit_log
from pipelines.filter_laion import FilterJob, run
from pipelines.lists import local_copies
from pipelines.recipes import FilterRecipe
from pipelines.report import reported
from pipelines.rescore import Rescoring, rescore
from pipelines.scoring import ScorerSpec, collect
from pipelines.settling import settled
from pipelines.shard import ShardJob
from shards.store import Store

PROGRAM = "dynet-filter"
ORDER = [reason.value for reason in Reason]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "calibrate":
        return calibrate.main(words[1:])
    if words and words[0] == "status":
        return status.main(words[1:])
    command = words.pop(0) if words and words[0] in _COMMANDS else "run"
    work, parser = _COMMANDS[command]
    flags = parser().parse_args(words)
    return terminal.guarded(PROGRAM, lambda: work(flags))


def _run(flags: argparse.Namespace) -> None:
    scratch_folder = tempfile.TemporaryDirectory(prefix="million-ird-")
    with metered.served(flags), _logged(flags), scratch_folder as scratch:
        job = _filter_job(flags, Path(scratch))
        cut = None if flags.no_shards else shard_recipe(flags, min_res=job.recipe.thresholds.min_res)
        with terminal.Bar("filter", "url") as bar:
            changes = run(job, lambda rows, so_far: bar(rows, so_far.total(), terminal.kept_so_far(so_far)))
    print(terminal.shares(_named(changes.funnel), ORDER, "reason"))
    print(f"ledger: {job.store.root}/ledger/  originals: {job.store.root}/images/")
    with plan.Stopwatch(job.store) as cutting:
        if cut is not None and changes.funnel[Reason.KEPT]:
            shard_and_report(
                ShardJob(store=job.store, stores=(job.store,), folders=(), recipe=cut, max_pixels=job.recipe.max_pixels)
            )
    print(f"report: {reported(job.store)}")
    plan.compare(job.store, cutting.seconds)


def _plan(flags: argparse.Namespace) -> None:
    flags.out = flags.out or plan.pilot_store(flags.urls)
    with tempfile.TemporaryDirectory(prefix="million-ird-") as scratch:
        wanted = plan.wanted(flags)
        job = _filter_job(flags, Path(scratch))
        cut = None if flags.no_shards else shard_recipe(flags, min_res=job.recipe.thresholds.min_res)
        plan.make(wanted, job, cut, Path(scratch))


def _logged(flags: argparse.Namespace) -> AbstractContextManager[None]:
    return nullcontext() if flags.log is None else unit_log.written(flags.log)


def _filter_job(flags: argparse.Namespace, scratch: Path) -> FilterJob:
    recipe = _recipe(flags)
    return FilterJob(
        store=terminal.out_store(flags.out, flags.endpoint_url),
        lists=local_copies(flags.urls, flags.endpoint_url, scratch),
        recipe=recipe,
        scoring=ScorerSpec.of(resolve(recipe.metrics, flags.weights), recipe.engine),
        fetching=_fetching(flags),
        retry_failed=flags.retry_failed,
    )


def _recipe(flags: argparse.Namespace) -> FilterRecipe:
    """The recipe file or the default, with what the flags say on top."""
    base = recipes.read_recipe(flags.recipe) if flags.recipe else recipes.laion_hr()
    bounds = _bounds(flags, {one.metric: one.bound for one in base.thresholds.metrics})
    kept = {name: getattr(base.thresholds, name) for name in ("min_res", "max_punsafe", "max_pwatermark")}
    said = {name: getattr(flags, name) for name in kept if getattr(flags, name) is not None}
    rest = {
        "engine": flags.engine,
        "source": flags.source,
        "chunk_size": flags.chunk_size,
        "max_pixels": flags.max_pixels,
        "cascade": False if flags.no_cascade else None,
    }
    return replace(
        base,
        thresholds=recipes.thresholds(bounds, **{**kept, **said}),
        **{name: value for name, value in rest.items() if value is not None},
    )


def _bounds(flags: argparse.Namespace, base: dict[str, float]) -> dict[str, float]:
    said = dict(terminal.threshold(text) for text in flags.threshold)
    wanted = terminal.names(flags.metrics) if flags.metrics else [*base, *(m for m in said if m not in base)]
    if idle := [metric for metric in said if metric not in wanted]:
        raise ValueError(f"--threshold {idle[0]}={said[idle[0]]}: --metrics names {', '.join(wanted)} alone")
    both = {**base, **said}
    if missing := [metric for metric in wanted if metric not in both]:
        raise ValueError(f"no threshold for {', '.join(missing)}: add --threshold {missing[0]}=NUMBER")
    return {metric: both[metric] for metric in wanted}


def _fetching(flags: argparse.Namespace) -> FetchSettings:
    names = ("threads", "read_timeout", "deadline", "max_bytes", "per_host", "attempts", "allow_private_hosts")
    said = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    return FetchSettings(**said)


def _judge(flags: argparse.Namespace) -> None:
    store = terminal.out_store(flags.out, flags.endpoint_url)
    recipe = claims.recipe(store)
    new = replace(recipe, thresholds=_new_thresholds(flags, recipe))
    if flags.score:
        _rescore(store, new, flags.weights)
    elif unknown := sorted(set(new.metrics) - set(claims.weights(store))):
        raise ValueError(
            f"{store.root} has no scores of {', '.join(unknown)}: it has {', '.join(claims.weights(store))}; "
            "add --score to compute them from the kept originals"
        )
    elif not flags.dry_run:
        claims.reclaim(store, new, {})
    about = {"recipe": new.to_dict(), "weights": claims.weights(store)}
    changes = settled(store, new.thresholds, new.near_duplicate_bits, new.metrics, about, write=not flags.dry_run)
    _print_changes(changes, flags.dry_run)


def _new_thresholds(flags: argparse.Namespace, recipe: FilterRecipe) -> Thresholds:
    bounds = _bounds(flags, {one.metric: one.bound for one in recipe.thresholds.metrics})
    kept = {name: getattr(recipe.thresholds, name) for name in ("min_res", "max_punsafe", "max_pwatermark")}
    said = {name: getattr(flags, name) for name in kept if getattr(flags, name) is not None}
    return recipes.thresholds(bounds, **{**kept, **said})


def _rescore(store: Store, recipe: FilterRecipe, weights: Path | None) -> None:
    """Metrics that the store has scores of go on with the weights that it keeps; `weights` is for the others."""
    known = claims.weights(store)
    with tempfile.TemporaryDirectory(prefix="million-ird-weights-") as folder:
        collect(store, Path(folder))
        had = [metric for metric in recipe.metrics if metric in known]
        new = [metric for metric in recipe.metrics if metric not in known]
        found = (resolve(had, Path(folder)) if had else {}) | (resolve(new, weights) if new else {})
        scoring = ScorerSpec.of({metric: found[metric] for metric in recipe.metrics}, recipe.engine)
        claims.reclaim(store, recipe, scoring.digests)
        about = {"recipe": recipe.to_dict(), "weights": claims.weights(store)}
        with terminal.Bar("score", "chunk") as bar:
            count = rescore(Rescoring(store=store, recipe=recipe, scoring=scoring, about=about), bar)
    print(f"{count} kept originals were scored")


def _print_changes(changes: Changes, dry_run: bool) -> None:
    moves = {pair: count for pair, count in changes.moves.items() if pair[0] is not pair[1]}
    rows = [(f"{a.value} -> {b.value}", n) for (a, b), n in sorted(moves.items(), key=lambda move: -move[1])]
    print(terminal.table(("change", "rows"), rows) if rows else "no row changes")
    print()
    print(terminal.shares(_named(changes.funnel), ORDER, "reason"))
    for (metrics, stored), count in sorted(changes.unscored.items()):
        means = "add --score to compute it from the kept originals" if stored else "not kept, to be downloaded"
        print(f"{count} rows wait for {', '.join(metrics)}: {means}")
    here = sum(count for (_, stored), count in changes.unscored.items() if stored)
    open_rows = changes.funnel[Reason.NOT_STORED] + changes.funnel[Reason.NOT_MEASURED] - here
    if open_rows:
        print(f"{open_rows} rows need a download: give the filter's command again with --retry-failed")
    if dry_run:
        print("nothing was written (--dry-run)")


def _fit(flags: argparse.Namespace) -> None:
    if not flags.good.is_dir():
        raise ValueError(f"{flags.good}: no such folder; --good takes one with pristine pictures")
    made = fit(sorted(path for path in flags.good.rglob("*") if path.is_file()), flags.out)
    print(f"wrote {', '.join(made.sha256)} to {flags.out}: fitted to {made.pictures} pictures, {made.flat} were flat")


def _named(funnel: Counter[Reason]) -> Counter[str]:
    return Counter({reason.value: count for reason, count in funnel.items()})


def _parser(command: str, example: str) -> argparse.ArgumentParser:
    name = PROGRAM if command == "run" else f"{PROGRAM} {command}"
    return terminal.parser(name, _DESCRIPTIONS[command], example)


_DESCRIPTIONS = {
    "run": "Downloads a list's pictures, keeps what all metrics agree on, cuts 512x512 patch shards.\n"
    "Commands beside it, each with its --help: dynet-filter plan, judge, calibrate, fit, status.",
    "plan": "Tries the run on some of the list, and says what all of it will take and give, on a cluster, at prices.\n"
    "What the run itself would be given, but for --out, is given here as well.",
    "judge": "Applies new thresholds to a ledger, without a download, and says what changes.",
    "fit": "Fits NIQE's and BRISQUE's models to pristine pictures of your own domain.",
}


def _add_verdict_flags(parser: argparse.ArgumentParser, *, needs_out: bool = True) -> None:
    of_pilot = "the pilot's own store: a folder or s3://bucket/prefix (default: LIST-pilot, here)"
    parser.add_argument(
        "--out", required=needs_out, help="the store: a folder or s3://bucket/prefix" if needs_out else of_pilot
    )
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    parser.add_argument("--metrics", help="the metrics that vote, comma-separated; pyiqa's names, or this project's")
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="METRIC=NUMBER", help="may be given more than once"
    )
    parser.add_argument("--min-res", type=int, help="both sides, pixels (default 1024)")
    parser.add_argument("--max-punsafe", type=float, help="LAION's own probability (default 0.5)")
    parser.add_argument("--max-pwatermark", type=float, help="LAION's own probability (default 0.8)")


def _run_parser() -> argparse.ArgumentParser:
    parser = _parser("run", f"{PROGRAM} --urls laion_hr.parquet --out million-ird --weights weights/")
    _add_run_flags(parser)
    parser.add_argument("--log", type=Path, metavar="FILE", help="a line of JSON for each chunk; also /dev/stderr")
    metered.add_flag(parser)
    return parser


def _plan_parser() -> argparse.ArgumentParser:
    example = f"{PROGRAM} plan --urls laion_hr.parquet --pilot 5000 --nodes 8 --cores 32 --for s3://bucket/set"
    parser = _parser("plan", example)
    plan.add_flags(parser)
    _add_run_flags(parser, needs_out=False)
    return parser


def _add_run_flags(parser: argparse.ArgumentParser, *, needs_out: bool = True) -> None:
    parser.add_argument("--urls", nargs="+", default=[], help="Parquet or CSV lists: files or s3://bucket/key")
    _add_verdict_flags(parser, needs_out=needs_out)
    parser.add_argument("--recipe", type=Path, help="a JSON file, in the form of recipe.json in any store")
    parser.add_argument("--weights", type=Path, help="folder with the metrics' weights (else pyiqa's cache)")
    parser.add_argument("--engine", choices=ENGINES, help="who computes the metrics (default fused)")
    parser.add_argument(
        "--no-cascade", action="store_true", help="whole files and every score, also of what is already refused"
    )
    parser.add_argument("--source", help="the name of this source in the tables (default laion-hr)")
    parser.add_argument("--chunk-size", type=int, help="URLs in a work unit (default 1000)")
    parser.add_argument("--max-pixels", type=int, help="larger pictures are refused from the header")
    parser.add_argument("--retry-failed", action="store_true", help="again just what failed for a passing reason")
    parser.add_argument("--no-shards", action="store_true", help="stop at the kept originals")
    downloads = parser.add_argument_group("downloads")
    downloads.add_argument("--threads", type=int, help="at once, per chunk in work")
    downloads.add_argument("--per-host", type=int, help="at once, per host and machine")
    downloads.add_argument("--read-timeout", type=float, help="seconds without a byte")
    downloads.add_argument("--deadline", type=float, help="seconds in all, per URL")
    downloads.add_argument("--max-bytes", type=int, help="bytes of one file")
    downloads.add_argument("--attempts", type=int, help="tries per URL, for transient failures alone")
    downloads.add_argument(
        "--allow-private-hosts", action="store_true", default=None, help="also loopback and private addresses"
    )
    add_shard_flags(parser)


def _judge_parser() -> argparse.ArgumentParser:
    parser = _parser("judge", f"{PROGRAM} judge --out million-ird --threshold niqe=4.5 --dry-run")
    _add_verdict_flags(parser)
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--dry-run", action="store_true", help="say what would change and write nothing")
    work.add_argument("--score", action="store_true", help="compute missing scores of kept originals")
    parser.add_argument("--weights", type=Path, help="for --score: weights of metrics new to the store")
    return parser


def _fit_parser() -> argparse.ArgumentParser:
    parser = _parser("fit", f"{PROGRAM} fit --good pristine/ --out weights/")
    parser.add_argument("--good", type=Path, required=True, help="folder of pristine pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights; must not hold any")
    return parser


_COMMANDS = {
    "run": (_run, _run_parser),
    "plan": (_plan, _plan_parser),
    "judge": (_judge, _judge_parser),
    "fit": (_fit, _fit_parser),
}


if __name__ == "__main__":
    sys.exit(main())
