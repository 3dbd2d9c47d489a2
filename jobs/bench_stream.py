"""Crops for training from shards: this project's stream beside what else there is, in one process, on one core.

Everyone gives the same thing, batches of uint8 crops at random places of the same patches, shuffled as each does it.
In every round each contender has its turn; the best of its rounds counts. What the stream does is compared with the
decoder alone in slices of 0.1 s of CPU time, in turns, so that what else the machine does slows both; of the ratios of
neighbours the median counts, and the quartiles say how far to trust it.
"""

from __future__ import annotations

import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
import torch
import webdataset
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from curation.folders import Folder
from dynet.data import Degrade
from dynet.degrade import Degradation
from jobs import terminal
from jobs.bench_first_batch import BATCH, CROP
from jobs.terminal import ratio, shown
from pipelines.recipes import ShardRecipe
from pipelines.shard import ShardJob, shard
from shards import index, parquet, tar
from shards.cache import Cache
from shards.crops import segments_under
from shards.manifest import FOLDER, Manifest, Shard, Version, commit, read_manifest, set_id
from shards.order import crop_box
from shards.patches import Box
from shards.store import LocalStore, Store
from shards.stream import Derive, Plan, Stream

PATCH: Final = 512
_SHUFFLE: Final = 1000  # samples, for those who have a buffer
_ROUNDS: Final = 3
_SLICE: Final = 0.1  # seconds of CPU time
_DERIVE: Final = Degrade(seed=0, how=Degradation())
OURS: Final = (
    "this project, from a folder",
    "this project, from its cache",
    "this project, from a folder, JPEG patches alone",
    "this project, from its cache, JPEG patches alone",
)
LIMITS: Final = (
    "OpenCV alone, JPEGs of the crop's pixels (limit)",
    "libjpeg-turbo alone, JPEGs of the crop's pixels (limit)",
    "libjpeg-turbo alone, the segments under the crop (limit)",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast a contender was, in its best round."""

    name: str
    samples: float  # per second of one core
    bytes: float  # that it reads, per sample


def made(photos: Path, scratch: Path) -> LocalStore:
    """The patches of a folder of pictures, as `dynet-shard` cuts them. Starts Ray."""
    store = LocalStore(scratch / "ours")
    folder = Folder(name="bench", path=photos)
    recipe = ShardRecipe(min_res=512, max_shard_bytes=50_000_000)
    shard(ShardJob(store=store, stores=(), folders=(folder,), recipe=recipe, max_pixels=200_000_000), lambda *_: None)
    return store


def table(store: LocalStore, scratch: Path, seconds: float) -> str:
    """Paces of all contenders on the set in `store`, each for `seconds` a round."""
    torch.set_num_threads(1)
    set_ = read_manifest(store)
    jpegs = sum(suffix == "jpg" for one in index.read(store, set_) for suffix in one["suffix"].to_pylist())
    alone = _jpegs_alone(store, set_, scratch / "jpegs")
    head = f"{set_.samples} patches ({jpegs} JPEG), {set_.bytes / set_.samples / 1000:.0f} KB each, crops of {CROP}\n"
    paces = _paces(store, set_, alone, scratch, seconds)
    return f"{head}{compared(paces)}\n{shares(paces)}\n{_neighbours(store, set_, alone, scratch, seconds)}"


def _paces(store: LocalStore, set_: Manifest, alone: LocalStore, scratch: Path, seconds: float) -> list[Pace]:
    ours = [store.folder / FOLDER / shard.name for shard in set_.shards]
    pngs = _as_png(ours, scratch / "png")
    contenders: dict[str, tuple[Callable[[], Iterator[int]], float]] = {
        OURS[0]: (lambda: _ours(store, None), _size(ours)),
        OURS[1]: (lambda: _ours(store, _filled(store, scratch / "cache")), _size(ours)),
        OURS[2]: (lambda: _ours(alone, None), 0.0),
        OURS[3]: (lambda: _ours(alone, _filled(alone, scratch / "cache")), 0.0),
        "this project, from a folder, crops degraded too": (lambda: _ours(store, None, _DERIVE), _size(ours)),
        "the degradation alone": (lambda: _degraded(store), 0.0),
        "webdataset on PNG shards": (lambda: _stock(pngs), _size(pngs)),
        "webdataset on our shards": (lambda: _stock(ours), _size(ours)),
        "raw read of our tars (limit)": (lambda: _raw(ours), _size(ours)),
        LIMITS[0]: (_decoder(_needed(store, set_), lambda data: cv2.imdecode(data, cv2.IMREAD_COLOR)), 0.0),
        LIMITS[1]: (_decoder(_needed(store, set_), _turbo()), 0.0),
        LIMITS[2]: (_decoder(_segments(store, set_), _turbo()), 0.0),
    }
    mds = _as_mds(ours, scratch / "mds")
    if mds is not None:
        contenders["mosaicml-streaming on MDS"] = (lambda: _mosaic(mds), _size([*mds.glob("*.mds")]))
    best: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name, (run, _) in contenders.items():
            best[name] = max(best.get(name, 0.0), _per_second(run, seconds))
    return [Pace(name=name, samples=best[name], bytes=of / set_.samples) for name, (_, of) in contenders.items()]


def compared(paces: Sequence[Pace]) -> str:
    """The table, with each as a multiple of stock webdataset on PNG."""
    base = next(one.samples for one in paces if one.name == "webdataset on PNG shards")
    rows = [
        (one.name, shown(one.samples), ratio(one.samples, base), f"{one.bytes / 1000:.0f} KB" if one.bytes else "-")
        for one in paces
    ]
    return terminal.table(("", "samples/s", "times webdataset on PNG", "a sample"), rows)


def shares(paces: Sequence[Pace]) -> str:
    """How much of what a decoder can do by itself the stream does."""
    pace = {one.name: one.samples for one in paces}
    rows = [(ours, *(f"{pace[ours] / pace[limit]:.0%}" for limit in LIMITS)) for ours in OURS]
    return terminal.table(("share of the limits", *(limit.removesuffix(" (limit)") for limit in LIMITS)), rows)


def _neighbours(store: LocalStore, set_: Manifest, alone: LocalStore, scratch: Path, seconds: float) -> str:
    """The stream on JPEG patches against the last of the limits, slice by slice."""
    ours = {OURS[2]: _ours(alone, None), OURS[3]: _ours(alone, _filled(alone, scratch / "cache"))}
    limit = _again(_decoder(_segments(store, set_), _turbo()))
    for run in (*ours.values(), limit):
        _slice(run)
    found: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(int(_ROUNDS * seconds / _SLICE)):
        for name, run in ours.items():
            before, pace, after = _slice(limit), _slice(run), _slice(limit)
            found[name].append(2 * pace / (before + after))
    return in_turns(found)


def in_turns(found: Mapping[str, Sequence[float]]) -> str:
    """Median, quartiles and best of each one's ratios."""
    rows = []
    for name, ratios in found.items():
        first, median, third = statistics.quantiles(ratios, n=4)
        rows.append((name, f"{median:.0%}", f"{first:.0%} to {third:.0%}", f"{max(ratios):.0%}", str(len(ratios))))
    head = ("in turns with libjpeg-turbo alone, the segments under the crop", "median", "quartiles", "best", "pairs")
    return terminal.table(head, rows)


def _again(run: Callable[[], Iterator[int]]) -> Iterator[int]:
    while True:
        yield from run()


def _slice(counts: Iterator[int]) -> float:
    """Samples a second of this process's CPU time, for `_SLICE` of it."""
    count, started = 0, time.process_time()
    while (taken := time.process_time() - started) < _SLICE:
        count += next(counts)
    return count / taken


def _per_second(run: Callable[[], Iterator[int]], seconds: float) -> float:
    """Samples a second of this process's CPU time, epoch after epoch until the time is up, the first batch left out."""
    counts = run()
    next(counts)
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        for given in counts:
            count += given
            if time.process_time() - started > seconds:
                break
        else:
            counts = run()
    return count / (time.process_time() - started)


# ---------------------------------------------------------------- the contenders


def _ours(store: LocalStore, cache: Cache | None, derive: Derive | None = None) -> Iterator[int]:
    """Epoch after epoch, as a trainer does."""
    stream = Stream(store.root, Plan(batch=BATCH, crop=CROP), cache=cache, derive=derive)
    while True:
        yield from (len(batch.samples) for batch in stream)


def _filled(store: LocalStore, folder: Path) -> Cache:
    cache = Cache(folder=folder)
    for one in read_manifest(store).shards:
        cache.fetch(store, one)
    return cache


def _degraded(store: LocalStore) -> Iterator[int]:
    """The crops of one batch, again and again, each time as in another epoch."""
    [batch] = itertools.islice(Stream(store.root, Plan(batch=BATCH, crop=CROP)), 1)
    crops = np.ascontiguousarray(batch.pixels.permute(0, 2, 3, 1).numpy())
    for epoch in itertools.count():
        yield len(_DERIVE(crops, batch.samples, [epoch] * len(crops)))


def _stock(tars: Sequence[Path]) -> Iterator[int]:
    """Stock webdataset, as its documents have it: shuffle buffer, Pillow, crop, batch."""
    random = np.random.default_rng(0)

    def crop(sample: dict[str, Any]) -> torch.Tensor:
        pixels = sample["jpg"] if "jpg" in sample else sample["png"]
        top, left = random.integers(0, [n - CROP + 1 for n in pixels.shape[:2]])
        return torch.from_numpy(np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP]))

    urls = [str(path) for path in tars]
    samples = webdataset.WebDataset(urls, shardshuffle=False).shuffle(_SHUFFLE).decode("rgb8").map(crop)
    return (len(batch) for batch in samples.batched(BATCH, collation_fn=torch.stack))


def _mosaic(folder: Path) -> Iterator[int]:
    """mosaicml-streaming on the same JPEG bytes, decoded by Pillow as its own `jpeg` encoding does."""
    from streaming import StreamingDataset

    random = np.random.default_rng(0)

    class Crops(StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            pixels = np.asarray(Image.open(io.BytesIO(super().__getitem__(at)["data"])).convert("RGB"))
            top, left = random.integers(0, [n - CROP + 1 for n in pixels.shape[:2]])
            return torch.from_numpy(np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP]))

    samples = Crops(local=str(folder), shuffle=True, batch_size=BATCH)
    loader: torch.utils.data.DataLoader[torch.Tensor] = torch.utils.data.DataLoader(samples, batch_size=BATCH)
    return (len(batch) for batch in loader)


def _raw(tars: Sequence[Path]) -> Iterator[int]:
    for path in tars:
        for member in tar.members(path.read_bytes()):
            if not member.name.endswith(".json"):
                yield 1


def _decoder(coded: Sequence[np.ndarray], decode: Callable[[np.ndarray], Any]) -> Callable[[], Iterator[int]]:
    def run() -> Iterator[int]:
        for one in coded:
            decode(one)
            yield 1

    return run


def _turbo() -> Callable[[np.ndarray], Any]:
    """The decoder that the stream uses, as it uses it."""
    pixels = np.empty(1 << 20, np.uint8)
    return lambda data: simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)


def _needed(store: LocalStore, set_: Manifest) -> list[np.ndarray]:
    """JPEGs that have the crops' pixels and no others, with the patches' own tables and sampling."""
    return [_only(data, crop_box(0, 0, name, PATCH, CROP)) for name, data in _jpegs(store, set_)]


def _segments(store: LocalStore, set_: Manifest) -> list[np.ndarray]:
    """What the stream gives to the decoder."""
    boxes = ((data, crop_box(0, 0, name, PATCH, CROP)) for name, data in _jpegs(store, set_))
    return [np.frombuffer(segments_under(data, box), np.uint8) for data, box in boxes]


def _jpegs(store: LocalStore, set_: Manifest) -> Iterator[tuple[str, bytes]]:
    for one, rows in zip(set_.shards, index.read(store, set_), strict=True):
        for entry in index.from_table(rows):
            if entry.suffix == "jpg":
                yield entry.sample, store.read(FOLDER + one.name, entry.data_offset, entry.data_size)


def _only(data: bytes, box: Box) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as patch:
        sink = io.BytesIO()
        how = {"qtables": patch.quantization, "subsampling": get_sampling(patch), "optimize": True}
        patch.crop((box.left, box.top, box.left + box.size, box.top + box.size)).save(sink, "JPEG", **how)
    return np.frombuffer(sink.getvalue(), np.uint8)


# ---------------------------------------------------------------- the same patches in other forms


def _as_png(tars: Sequence[Path], folder: Path) -> list[Path]:
    """The same samples in the same order, as PNG."""
    folder.mkdir()
    for path in tars:
        members = ((_png_name(one.name), _png(one.data, one.name)) for one in tar.members(path.read_bytes()))
        tar.write(folder / path.name, sorted(members))
    return [folder / path.name for path in tars]


def _png_name(name: str) -> str:
    return name.replace(".jpg", ".png")


def _png(data: bytes, name: str) -> bytes:
    if not name.endswith(".jpg"):
        return data
    sink = io.BytesIO()
    with Image.open(io.BytesIO(data)) as patch:
        patch.convert("RGB").save(sink, "PNG", compress_level=4)  # the level of `shards.codec`
    return sink.getvalue()


def _jpegs_alone(store: LocalStore, set_: Manifest, folder: Path) -> LocalStore:
    """A set of the shards of JPEG patches: no decoder of JPEGs can do anything for the others."""
    target = LocalStore(folder)
    kept: list[Shard] = []
    tables: list[pa.Table] = []
    for one, rows in zip(set_.shards, index.read(store, set_), strict=True):
        entries = index.from_table(rows)
        if entries[0].suffix == "jpg":  # a shard has one kind
            target.write(FOLDER + one.name, store.folder / FOLDER / one.name)
            tables.append(index.to_table([replace(entry, shard=len(kept)) for entry in entries]))
            kept.append(one)
    _commit(target, set_, kept, tables)
    return target


def _as_mds(tars: Sequence[Path], folder: Path) -> Path | None:
    """The same bytes as MDS; None where mosaicml-streaming is not installed."""
    try:
        from streaming import MDSWriter
    except ImportError:
        print("mosaicml-streaming is not installed (pip install mosaicml-streaming, in an environment of its own)")
        return None
    with MDSWriter(out=str(folder), columns={"data": "bytes"}) as writer:
        for path in tars:
            for member in tar.members(path.read_bytes()):
                if not member.name.endswith(".json"):
                    writer.write({"data": member.data})
    return folder


def _size(paths: Sequence[Path]) -> float:
    return float(sum(path.stat().st_size for path in paths))


# ---------------------------------------------------------------- a cold start, and memory


def cold_start(store: LocalStore, target: Store, endpoint_url: str | None, scratch: Path) -> str:
    """From `Stream(…)` to its first batch, of two shards of 1 GB in `target`, beside the fetch of one whole shard.

    And what a process holds after 50 batches.
    """
    write_large(store, target, shards=2, shard_bytes=1_000_000_000)
    started = time.perf_counter()
    if not Cache(folder=scratch / "whole").fetch(target, read_manifest(target).shards[0]):
        raise ValueError(f"no room for a shard of 1 GB in {scratch}: set TMPDIR to a larger disk")
    whole = time.perf_counter() - started
    said = [_first_batch(target.root, endpoint_url, scratch / str(number)) for number in range(_ROUNDS)]
    first = min(one["first_batch"] for one in said)
    rows = [
        ("first batch, nothing cached", f"{first:.2f} s"),
        ("one shard of 1 GB, whole", f"{whole:.2f} s"),
        ("peak of a process, its modules loaded", f"{said[0]['loaded'] / 1e6:.0f} MB"),
        ("the same after 50 batches", f"{said[0]['peak'] / 1e6:.0f} MB"),
    ]
    return terminal.table(("cold start", ""), rows)


def _first_batch(root: str, endpoint_url: str | None, cache: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "jobs.bench_first_batch", root, endpoint_url or "", str(cache)]
    return dict(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def write_large(store: LocalStore, target: Store, shards: int, shard_bytes: int) -> None:
    """A set of shards of this size in `target`: the patches of `store` again and again, under other keys."""
    set_ = read_manifest(store)
    pieces = list(_jpegs(store, set_))
    made, tables = [], []
    for place in range(shards):
        one, rows = _large_shard(target, place, pieces, shard_bytes)
        made.append(one)
        tables.append(rows)
    _commit(target, set_, made, tables)


def _commit(target: Store, set_: Manifest, made: Sequence[Shard], tables: Sequence[pa.Table]) -> None:
    """The manifest of these shards and their rows, with the recipe of another set."""
    versions = (Version(number=1, shards=len(made), tombstones=0),)
    written = index.write(target, set_id(made), versions, tables)
    part = parquet.write(target, "metadata.parquet", index.SCHEMA, tables)
    commit(
        target,
        Manifest(
            set=set_id(made),
            recipe=set_.recipe,
            shards=tuple(made),
            index=written,
            metadata=part,
            versions=versions,
        ),
    )


def _large_shard(target: Store, place: int, pieces: Sequence[tuple[str, bytes]], size: int) -> tuple[Shard, pa.Table]:
    count = size // (sum(tar.stored_size(len(data), 2) for _, data in pieces) // len(pieces))
    keys = [f"{place * count + number:016x}" for number in range(count)]
    chosen = [pieces[number % len(pieces)][1] for number in range(count)]
    name = f"train-{place:06d}.tar"
    with tempfile.TemporaryDirectory(prefix="million-ird-") as folder:
        members = ((f"{key}_00000_00000.jpg", data) for key, data in zip(keys, chosen, strict=True))
        placed = tar.write(Path(folder) / name, members)
        written = target.write(FOLDER + name, Path(folder) / name)
    entries = [
        index.Entry(
            sample=one.name.partition(".")[0],
            key=key,
            source="bench",
            shard=place,
            slot=slot,
            suffix="jpg",
            digest=one.digest,
            data_offset=one.offset,
            data_size=one.size,
            json_offset=0,
            json_size=0,
        )
        for slot, (key, one) in enumerate(zip(keys, placed, strict=True))
    ]
    one = Shard(name=name, bytes=written.size, sha256=written.sha256, samples=count, slots=count)
    return one, index.to_table(entries)
