"""`make demo`: the main job from end to end, on pictures that it draws or on yours, without the internet.

Draws pictures (or takes those of --photos), serves them over HTTP on loopback, filters the list of their links with
`dynet-filter`, cuts and shards what is kept, and says where everything lies.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from curation.fit import fit
from curation.scorers import WeightMissing, resolve
from jobs import filter_laion, terminal
from jobs.demo_server import serve
from pipelines import recipes
from pipelines.demo_pictures import make_pictures, write_folder_list, write_list

PROGRAM = "make demo"
PRISTINE = "good"  # DemoPicture.kind of what the fallback models are fitted to


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for all that the demo makes")
    parser.add_argument("--photos", type=Path, help="a folder of your own pictures instead of the drawn ones")
    parser.add_argument("--weights", type=Path, help="folder with the official weights")
    return terminal.guarded(PROGRAM, lambda: _demo(parser.parse_args(argv)))


def _demo(flags: argparse.Namespace) -> None:
    started = time.monotonic()
    folder, pristine = _pictures(flags)
    weights, recipe = _weights(flags, pristine)
    with serve(folder) as base_url:
        urls = _list(flags, folder, base_url)
        print(f"list: {urls}, served from {folder} at {base_url}")
        words = ["--urls", str(urls), "--out", str(flags.out / "store"), "--recipe", str(recipe)]
        words += ["--weights", str(weights)] if weights else []
        status = filter_laion.main([*words, "--allow-private-hosts"])
    if status:
        raise ValueError("the filter did not end well; its own words stand above")
    print(f"the demo took {time.monotonic() - started:.0f} s")
