"""A plan from a pilot against the run that it is of, on a small web that fails and waits."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.fit import fit
from curation.scorers import resolve
from jobs.bench_mixture import SIDE, small_web
from jobs.bench_runs import METRICS, Weights, job_command, run
from jobs.bench_server import texture
from pipelines import pilot, promise, recipes


def planning(flags: argparse.Namespace, scratch: Path) -> str:
    """Plan, the pilot's sums, and plan against actual."""
    fitted = flags.weights or scratch / "weights"
    if flags.weights is None:
        fit([texture(seed, 768, 960) for seed in range(1, 7)], fitted)
    bounds = {one.metric: one.bound for one in recipes.demo().thresholds.metrics}
    weights = Weights(files=resolve(METRICS, fitted), bounds=bounds, folder=fitted)
    # no second tries; as patient as ever, or a busy machine's own server would count as a slow host
    once = ("--attempts", "1", "--deadline", "30", "--min-res", str(SIDE))
    with small_web(flags.rows, flags.wait) as urls_there:
        listed = scratch / "list.parquet"
        pq.write_table(pa.table({"URL": urls_there}), listed)
        store = scratch / "store"
        script, *words = job_command(listed, scratch / "pilot", weights, *once)
        planned = run([script, "plan", *words, "--pilot", str(flags.pilot), "--for", str(store)], scratch)
        said = (scratch / "log.txt").read_text()
        measured = (scratch / "pilot" / pilot.PILOT).read_text()  # what jobs/simulate.py takes
        done = run(job_command(listed, store, weights, *once), scratch)
    head = f"{said}\n{pilot.PILOT}: {measured}\n\n"
    head += f"pilot of {flags.pilot}: {planned.seconds:.0f} s; run of {flags.rows}: {done.seconds:.0f} s\n\n"
    return head + (store / promise.COMPARED).read_text()
