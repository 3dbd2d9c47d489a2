"""What the README's commands name, made small: lists of links on loopback, stores, sets, networks, pictures."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from curation.degradations import degrade
from curation.pilot import Pilot
from curation.records import url_key
from dynet import upstream
from dynet.model import DyNet
from jobs import filter_laion, shard
from pipelines import recipes
from pipelines.recipes import FilterRecipe
from shards.format import sample_name
from shards.manifest import FOLDER, read_manifest
from shards.store import LocalStore
from tests import evaluation, sets
from tests.curation.scorers.conftest import pin
from tests.dynet.pair_folders import write_folders
from tests.pipelines.conftest import SIDE, encoded, texture
from tests.readme import PROJECT
from tests.readme_world import World

MUSIQ: Final = "musiq_koniq_ckpt-e95806b9.pth"
#: The recipe of all lists here: small pictures from this machine, and models fitted to such.
SMALL: Final = (
    f"--min-res {SIDE} --metrics niqe,brisque --threshold niqe=30 --threshold brisque=200 "
    "--allow-private-hosts --attempts 1"
)
#: A patch of `drawn`.
PATCH: Final = sample_name(url_key(sets.url(0)), 0, 0)


def jobs(_world: World, path: Path) -> None:
    """Of a clone, what its commands lie in."""
    path.symlink_to(PROJECT / "jobs")


def prior(world: World, path: Path) -> None:
    """Weights of NIQE and BRISQUE."""
    shutil.copytree(world.prior, path)


def musiq(_world: World, path: Path) -> None:
    """Random weights under the name of those that pyiqa publishes, pinned."""
    from pyiqa.archs import musiq_arch

    path.mkdir()
    torch.save(musiq_arch.MUSIQ(num_class=1, pretrained=False).state_dict(), path / MUSIQ)
    pin(path)


def _link(world: World, seed: int) -> str:
    return world.server.add(f"/{seed}.jpg", encoded(texture(seed)), "image/jpeg")


def links(world: World, path: Path) -> None:
    """A list of three good pictures, one that is gone, and one that may come another time. A store knows its name."""
    urls = [
        *(_link(world, seed) for seed in range(3)),
        world.server.url("/404/gone.jpg"),
        world.server.url("/500/a.jpg"),
    ]
    pq.write_table(pa.table({"URL": urls}), path)


def link_lists(world: World, path: Path) -> None:
    """Two of them in a folder."""
    path.mkdir()
    for number in range(2):
        urls = [_link(world, 2 * number + more) for more in range(2)]
        pq.write_table(pa.table({"URL": urls}), path / f"part-{number}.parquet")


def pilot(_world: World, path: Path) -> None:
    """What a pilot of 100 rows measured."""
    seconds = {
        "wait_seconds": 90.0,
        "score_seconds": 6.0,
        "cut_seconds": 2.0,
        "store_seconds": 1.0,
        "unit_seconds": 3.0,
    }
    sizes = {"bytes_down": 30_000_000, "bytes_kept": 3_000_000, "bytes_ledger": 9_000, "bytes_shards": 2_000_000}
    made = Pilot(rows=100, answered=70, scored=40, kept=5, patches=20, chunks=1, **seconds, **sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.to_json())


def store(world: World, path: Path) -> None:
    """What the filter makes of `links`."""
    given = f"--urls {world.one(links)} --out {path} --weights {world.prior} {SMALL}"
    assert filter_laion.main(given.split()) == 0


def pictures(_world: World, path: Path, seeds: Sequence[int] = (0, 1, 2, 3)) -> None:
    """A folder of good ones."""
    path.mkdir()
    for seed in seeds:
        (path / f"{seed}.png").write_bytes(encoded(texture(seed), "PNG"))


few = functools.partial(pictures, seeds=(20, 21))
fewer = functools.partial(pictures, seeds=(22,))
least = functools.partial(pictures, seeds=(23,))


def blurred(_world: World, path: Path) -> None:
    """A folder of bad ones."""
    path.mkdir()
    for seed in range(10, 12):
        (path / f"{seed}.png").write_bytes(encoded(degrade(texture(seed), "blur", 3.0, seed=0), "PNG"))


def recipe(_world: World, path: Path) -> None:
    """A file as calibration writes it."""
    bounds = recipes.thresholds({"niqe": 30.0, "brisque": 200.0}, min_res=SIDE)
    path.write_text(json.dumps({"recipe": FilterRecipe(thresholds=bounds).to_dict()}))


def _cut_short(folder: Path) -> None:
    made = LocalStore(folder)
    name = FOLDER + read_manifest(made).shards[0].name
    made.write(name, made.read(name)[:5000])


def broken(world: World, path: Path) -> None:
    """A store with a shard that was cut short."""
    shutil.copytree(world.one(store), path)
    _cut_short(path)


def joined_and_broken(world: World, path: Path) -> None:
    """A set of the store and of a folder called NAME, with a shard that was cut short."""
    given = f"--min-res {SIDE} --out {path} {world.one(store)} --source NAME={world.one(fewer)}"
    assert shard.main(given.split()) == 0
    _cut_short(path)


def some_url(world: World, path: Path) -> None:
    path.write_text(f"{_link(world, 0)}\n")


def some_host(_world: World, path: Path) -> None:
    path.write_text("127.0.0.1\n")


def some_digest(_world: World, path: Path) -> None:
    path.write_text(hashlib.sha256(encoded(texture(0))).hexdigest() + "\n")


def drawn(_world: World, path: Path, counts: Sequence[int] = (12, 8), side: int = 32) -> None:
    """A set of small patches, by itself."""
    sets.write_set(LocalStore(path), counts, size=side)


patches_128 = functools.partial(drawn, counts=(40, 260), side=128)


def many_shards(world: World, path: Path) -> None:
    """A store with 42 of them."""
    shutil.copytree(world.one(store), path)
    first = path / "shards" / "train-000000.tar"
    for number in range(1, 42):
        shutil.copy(first, first.with_name(f"train-{number:06d}.tar"))


def checkpoint(_world: World, path: Path) -> None:
    """Of a narrow network."""
    evaluation.checkpoint(path)


def released(_world: World, path: Path) -> None:
    """Random weights as the released code has them."""
    torch.save(upstream.written(DyNet()), path)


def pairs(_world: World, path: Path) -> None:
    """What is fine-tuned on."""
    write_folders(path)


def tests(_world: World, path: Path) -> None:
    """The released layout."""
    evaluation.layout(path, count=1)


def clean(_world: World, path: Path) -> None:
    """A folder of small pictures."""
    for number in range(2):
        evaluation.put(path / f"{number}.png", evaluation.waves(number))


def rainy(world: World, path: Path) -> None:
    """Pairs of them."""
    shutil.copytree(world.one(tests) / "derain" / "Rain100L", path)


def ablated(world: World, path: Path) -> None:
    """What the ablation tests on."""
    shutil.copytree(world.one(tests) / "denoise" / "bsd68", path / "cbsd68")
    shutil.copytree(world.one(rainy), path / "rain" / "light")
    shutil.copytree(world.one(tests) / "dehaze", path / "haze" / "light")


def photo(_world: World, path: Path) -> None:
    """A small one."""
    path.write_bytes(encoded(evaluation.waves(3)))


def scan(_world: World, path: Path) -> None:
    path.write_bytes(encoded(evaluation.waves(4), "TIFF"))


def of_training() -> dict[str, object]:
    """What the README's snippet takes as known."""
    from dynet.data import Degrade, pair
    from dynet.degrade import Degradation
    from shards.stream import Plan, Stream

    return {
        "root": "million-ird",
        **{one.__name__: one for one in (Degrade, Degradation, Plan, Stream, pair)},
        "torch": torch,
    }


def of_the_network() -> dict[str, object]:
    """A picture, and the names that the README's text gives."""
    return {"DyNet": DyNet, "upstream": upstream, "pictures": torch.zeros(1, 3, 16, 24)}
