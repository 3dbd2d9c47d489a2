"""The data-set card: the README.md beside a published set. Its bytes are a function of the set alone, no date in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from curation.judge import Thresholds
from curation.records import Reason, Stage
from curation.report.reasons import REASONS
from shards.manifest import FOLDER, Manifest
from shards.publish import METADATA

_LICENCES: Final = 12  # shown, the most frequent ones
_STAGES: Final = {stage: place for place, stage in enumerate(Stage)}
_ORDER: Final = {reason: place for place, reason in enumerate(Reason)}


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a card says beside the manifest."""

    licences: Counter[str | None]  # of the pictures that are there, as their lists had it
    funnel: Counter[tuple[Stage, Reason]]  # empty where the store has no ledger
    thresholds: Thresholds | None  # None likewise
    weights: Mapping[str, str]  # metric -> SHA-256
    contact: str  # whom to ask for removal; may be empty
    pictures: bool  # whether the patches are published, or the metadata alone


def card(manifest: Manifest, about: About) -> bytes:
    """Markdown, UTF-8."""
    return ("\n\n".join(_sections(manifest, about)) + "\n").encode()


def _sections(manifest: Manifest, about: About) -> Iterator[str]:
    yield from _head(manifest, about)
    yield from _counts(manifest)
    yield from _made(manifest, about)
    if about.funnel:
        yield from _funnel(about.funnel)
    yield from _licences(about)
    yield from (_reading(manifest) if about.pictures else _reading_metadata(manifest))
    yield from _removal(about)


def _head(manifest: Manifest, about: About) -> Iterator[str]:
    size = manifest.recipe.get("size", 512)
    if about.pictures:
        yield f"# {manifest.samples:,} patches of {size}×{size} pixels"
        yield (
            "Clean photographs to train image restoration on, cut without loss: a patch of a JPEG is a copy of its DCT "
            "coefficients, everything else is PNG. WebDataset shards, with scores and the link of every picture."
        )
    else:
        yield f"# Links and scores of {about.licences.total():,} pictures"
        yield (
            f"The metadata of a set of {manifest.samples:,} patches of {size}×{size} pixels. **The pictures are not "
            "here**: every row has a picture's link and the SHA-256 of its bytes, to fetch it and to know it again."
        )
    yield f"Set `{manifest.set}`, version {manifest.version}. Made with million-ird."


def _counts(manifest: Manifest) -> Iterator[str]:
    yield "## What is in it"
    rows = [
        (name, one.pictures, one.with_patches, one.samples, one.flat) for name, one in sorted(manifest.sources.items())
    ]
    total = ("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))) if rows else ("all",)
    yield _table(("source", "pictures", "with patches", "patches cut", "dropped as flat"), [*rows, total])
    gone = manifest.versions[-1].tombstones
    removed = f" {gone:,} patches were removed since." if gone else ""
    yield f"{manifest.samples:,} patches in {len(manifest.shards):,} shards, {manifest.bytes:,} bytes.{removed}"


def _made(manifest: Manifest, about: About) -> Iterator[str]:
    yield "## How it was made"
    if about.thresholds is not None:
        yield (
            f"A picture is kept where both sides have at least {about.thresholds.min_res} pixels and every metric "
            "agrees; the list's own ratings may refuse it before "
            f"(unsafe over {about.thresholds.max_punsafe:g}, watermark over {about.thresholds.max_pwatermark:g})."
        )
        rows = [
            (one.metric, f"{'≤' if one.lower_better else '≥'} {one.bound:g}", about.weights.get(one.metric, ""))
            for one in about.thresholds.metrics
        ]
        yield _table(("metric", "kept", "SHA-256 of its weights"), rows)
    yield "The recipe of the patches:"
    yield f"```json\n{json.dumps(manifest.recipe, indent=1, sort_keys=True)}\n```"


def _funnel(funnel: Counter[tuple[Stage, Reason]]) -> Iterator[str]:
    yield "## What became of every link"
    whole = sum(funnel.values())
    ordered = sorted(funnel.items(), key=lambda item: (_STAGES[item[0][0]], _ORDER[item[0][1]]))
    rows = [
        (stage.value, reason.value, f"{count:,}", f"{100 * count / whole:.2f} %", REASONS[reason])
        for (stage, reason), count in ordered
    ]
    yield _table(("stage", "reason", "links", "share", "meaning"), [*rows, ("", "all", f"{whole:,}", "", "")])


def _licences(about: About) -> Iterator[str]:
    yield "## Licences"
    yield (
        "The pictures belong to whoever made them; this set grants no rights to them. Where the list of links named a "
        "picture's licence, `metadata.parquet` has it (`license`), beside its link and its source."
    )
    named = Counter({name or "not named": count for name, count in about.licences.items()})
    rows = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in rows[_LICENCES:])
    more = [(f"{len(rows) - _LICENCES:,} others", rest)] if rest else []
    yield _table(("licence", "pictures"), [*rows[:_LICENCES], *more])


def _reading(manifest: Manifest) -> Iterator[str]:
    yield "## How to read it"
    yield (
        "`shards/manifest.json` names all files with their bytes and SHA-256. The tars are those of stock webdataset; "
        "`s3://` needs the AWS command line."
    )
    yield f"```python\n{_WEBDATASET}\n```"
    yield "With Ray, for a folder or `s3://`:"
    yield f"```python\n{_RAY}\n```"
    yield f"A row a picture (link, size, hashes, licence, scores, number of patches), in `{_metadata(manifest)}`:"
    yield f"```python\n{_parquet(manifest)}\n```"
    yield "To check what you have, in `shards/`:"
    yield f"```sh\n{_CHECK}\n```"


def _reading_metadata(manifest: Manifest) -> Iterator[str]:
    yield "## How to read it"
    yield f"A row a picture (link, size, hashes, licence, scores, number of patches), in `{_metadata(manifest)}`:"
    yield f"```python\n{_parquet(manifest)}\n```"
    yield f"`{METADATA}` has its SHA-256, the recipe and the counts."


def _metadata(manifest: Manifest) -> str:
    return FOLDER + manifest.metadata.name


def _removal(about: About) -> Iterator[str]:
    yield "## To have a picture removed"
    whom = f"Write to {about.contact}" if about.contact else "Write to whoever published this copy"
    yield (
        f"{whom}, with the picture's link, or its `key` (first 16 hex digits of the link's SHA-256). Whoever keeps the "
        "set takes it out of shards and metadata with `dynet-shard forget` and publishes the next version. Delete "
        "older copies then."
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    """What lists say comes from strangers: no line break and no column of theirs."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:200]


_WEBDATASET: Final = """\
import json

import webdataset

root = "."  # where this file lies: a folder, https://..., or s3://...


def place(name):
    return f"pipe:aws s3 cp {root}/{name} -" if root.startswith("s3://") else f"{root}/{name}"


with webdataset.gopen(place("shards/manifest.json")) as file:
    names = [f"shards/{shard['name']}" for shard in json.load(file)["shards"]]
patches = webdataset.WebDataset([place(name) for name in names], shardshuffle=100).shuffle(1000).decode("rgb8")
for sample in patches:  # {"__key__", "jpg" or "png": (height, width, 3) uint8, "json": {...}}
    break"""

_RAY: Final = """\
import ray

# where some shards are of JPEG and others of PNG, each sort by itself: their samples have other members
rows = ray.data.read_webdataset([f"{root}/{name}" for name in names])"""

_CHECK: Final = """\
python3 -c 'import json; m = json.load(open("manifest.json"))
files = [*m["shards"], m["index"], m["metadata"], m["tombstones"]]
for f in filter(None, files): print(f["sha256"], "", f["name"])' | sha256sum --check --quiet"""


def _parquet(manifest: Manifest) -> str:
    return f'import pandas\n\npictures = pandas.read_parquet("{_metadata(manifest)}")'
