"""`dynet-shard forget`: pictures removed from a set on request, by link, host or hash, and never brought back."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from curation import forgotten, report
from curation.forgotten import Requests
from curation.records import url_key
from jobs import terminal
from pipelines.forget import ForgetJob, Forgot, Gone, forget
from pipelines.report import reported

PROGRAM = "dynet-shard forget"


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit status."""
    flags = _parser().parse_args(argv)
    return terminal.guarded(PROGRAM, lambda: _forget(flags))


def _forget(flags: argparse.Namespace) -> None:
    if not (flags.urls or flags.hosts or flags.sha256 or flags.purge):
        raise ValueError("nothing to forget: give --urls, --hosts or --sha256, each a file with one entry a line")
    asked = Requests(
        keys=frozenset(url_key(url) for url in forgotten.urls_in(flags.urls)) if flags.urls else frozenset(),
        hosts=forgotten.hosts_in(flags.hosts) if flags.hosts else frozenset(),
        sha256=forgotten.sha256_in(flags.sha256) if flags.sha256 else frozenset(),
    )
    store = terminal.out_store(flags.store, flags.endpoint_url)
    with terminal.Bar("forget", "unit") as bar:
        done = forget(ForgetJob(store=store, asked=asked, purge=flags.purge), bar)
    if flags.purge and store.exists(report.PAGE):  # it shows pictures
        reported(store)
    for line in _found(asked, done.gone):
        print(line)
    print(_outcome(done, flags.purge))


def _found(asked: Requests, gone: Sequence[Gone]) -> list[str]:
    """Of each kind: how many of the entries have pictures in the set, and which those are."""
    kinds: list[tuple[str, frozenset[str], Callable[[Gone], str | None]]] = [
        ("links", asked.keys, lambda one: one.key),
        ("hosts", asked.hosts, lambda one: asked.covering_host(one.url)),
        ("SHA-256", asked.sha256, lambda one: one.sha256),
    ]
    return [_counted(what, entries, entry_of, gone) for what, entries, entry_of in kinds if entries]


def _counted(what: str, entries: frozenset[str], entry_of: Callable[[Gone], str | None], gone: Sequence[Gone]) -> str:
    hit = [one for one in gone if entry_of(one) in entries]
    here = len({entry_of(one) for one in hit})
    said = f"{here} of {len(entries)} {what} are in the set: {len(hit)} pictures, {sum(o.patches for o in hit)} patches"
    rest = len(entries) - here
    return f"{said}; {rest} are not here (any more) and will not come back" if rest else said


def _outcome(done: Forgot, purge: bool) -> str:
    rows = f"{done.rows} rows of the ledger marked as forgotten"
    if done.version is None:
        return f"there are no shards yet; {rows}"
    patches = sum(one.patches for one in done.gone)
    said = f"version {done.version}: {len(done.gone)} pictures, {patches} patches removed; {rows}"
    if done.version == done.before:
        said = f"nothing to remove from the set, it stays at version {done.version}; {rows}"
    if purge:
        return f"{said}; {done.purged} shards written anew, {done.originals} kept originals and thumbnails deleted"
    return said if done.version == done.before else f"{said}; their bytes stay in the tars until --purge"


def _parser() -> argparse.ArgumentParser:
    parser = terminal.parser(
        PROGRAM,
        "Removes pictures from a set: a new version without them, in which all others keep their order. What was\n"
        "asked for stays on record in STORE (forgotten.parquet, not published) and is never cut or fetched again.\n"
        "Files have one entry a line; blank lines and those that begin with # are skipped.",
        f"{PROGRAM} million-ird --urls removals.txt --hosts opted-out.txt --purge",
    )
    parser.add_argument("store", metavar="STORE", help="a folder or s3://bucket/prefix")
    parser.add_argument("--urls", type=Path, metavar="FILE", help="links; the same bytes under other links go too")
    parser.add_argument("--hosts", type=Path, metavar="FILE", help="hosts; example.com stands for www.example.com too")
    parser.add_argument("--sha256", type=Path, metavar="FILE", help="SHA-256 of pictures' files, 64 hex digits")
    parser.add_argument(
        "--purge", action="store_true", help="the bytes go too: tars, originals; of earlier requests as well"
    )
    parser.add_argument("--endpoint-url", help="another S3 server than AWS's")
    return parser
