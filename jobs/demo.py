"""`make demo`: the main job from end to end, on pictures that it draws or on yours, without the internet.

Draws pictures (or takes those of --photos), serves them over HTTP on loopback, filters the list of their links with
`dynet-filter`, cuts and shards what is kept, pre-trains a narrow network on the shards with `dynet-pretrain`, and says
where everything lies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside the folder jobs/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from curation.fit import fit
from curation.scorers import WeightMissing, resolve
from jobs import filter_laion, pretrain, terminal
from jobs.demo_server import serve
from pipelines import recipes
from pipelines.demo_pictures import make_pictures, write_folder_list, write_list
from pipelines.recipes import FilterRecipe

PROGRAM = "make demo"
FITTED_TO = 12  # pristine pictures: what a fair start takes, see curation.fit


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for all that the demo makes")
    parser.add_argument("--photos", type=_folder, help="a folder of your own pictures instead of the drawn ones")
    parser.add_argument("--weights", type=Path, help="folder with the official weights")
    flags = parser.parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _demo(flags))


def _folder(word: str) -> Path:
    """Not every shell replaces the ~ of `make demo PHOTOS=~/Pictures`."""
    return Path(word).expanduser()


def _demo(flags: argparse.Namespace) -> None:
    started = time.monotonic()
    drawn = flags.out / "pictures"
    urls = flags.out / "links.parquet"
    shutil.rmtree(flags.out / "store", ignore_errors=True)
    print(f"drawing pictures into {drawn}", flush=True)
    pictures = make_pictures(drawn)
    pristine = [drawn / picture.name for picture in pictures if picture.kind == "good"]
    weights, recipe = _weights(flags, pristine[:FITTED_TO])
    (flags.out / "recipe.json").write_text(json.dumps(recipe.to_dict(), indent=1))
    with serve(flags.photos or drawn) as base_url:
        if flags.photos:
            write_folder_list(flags.photos, base_url, urls)
        else:
            write_list(pictures, base_url, urls)
        words = ["--urls", str(urls), "--out", str(flags.out / "store"), "--recipe", str(flags.out / "recipe.json")]
        words += ["--weights", str(weights)] if weights else []
        print(f"dynet-filter {' '.join(words)} --allow-private-hosts", flush=True)
        if filter_laion.main([*words, "--allow-private-hosts"]):
            raise ValueError("the filter did not end well: its own words stand above")
    _pretrain(flags.out)
    print(f"the demo took {time.monotonic() - started:.0f} s")


def _pretrain(out: Path) -> None:
    """A minute of the main thing, on what the filter kept."""
    shutil.rmtree(out / "run", ignore_errors=True)
    words = [str(out / "store"), "--out", str(out / "run"), "--recipe", "demo", "--device", "cpu"]
    print(f"dynet-pretrain {' '.join(words)}", flush=True)
    if pretrain.main(words):
        raise ValueError("the training did not end well: its own words stand above")


def _weights(flags: argparse.Namespace, pristine: Sequence[Path]) -> tuple[Path | None, FilterRecipe]:
    """The official weights and all three metrics where they can be had; else models fitted here, and no NIMA."""
    official = recipes.laion_hr()
    try:
        resolve(official.metrics, flags.weights)
        return flags.weights, official
    except WeightMissing as missing:
        if flags.weights:
            raise
        print(f"{missing}\nThe demo goes on without: NIQE and BRISQUE get models fitted to {len(pristine)} of its")
        print("own pictures (dynet-filter fit), and NIMA has no vote. Its verdicts show the flow, not quality.")
    folder = flags.out / "weights"
    if not (folder / "fit.json").is_file():
        fit(pristine, folder)
    return folder, recipes.demo()


if __name__ == "__main__":
    sys.exit(main())
