"""Faults of the internet: one more link on the toy's list, and the row that it has to end in.

Whatever the link does, the other thirteen rows, the originals and the shards are those of the undisturbed run.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable
from typing import Final

from curation.records import Reason
from jobs.bench_server import texture
from jobs.drill_compare import different_bytes, different_rows, rows_of
from jobs.drill_fault import Fault, Found, quoted
from jobs.drill_toy import SIDE, Toy, said
from jobs.hostile_server import HttpServer
from pipelines import demo_files as files
from shards.store import LocalStore, Store

BOMB_SIDE: Final = 20_000  # pixels: 400 megapixels, 1.2 GB once decoded, in 50 KB
NAMES: Final = 7  # that no resolver knows; five of them fill a chunk

#: What a list with one more chunk leaves as it was; the manifest counts them.
_OF_MORE_CHUNKS: Final = ("images/", "shards/train-", "shards/index")

Link = Callable[[Toy], str]


def link(serve: Link, reason: Reason, toy: Toy) -> Found:
    """Filters and shards the toy's links and the one that `serve` gives, which has to end in `reason`."""
    url = serve(toy)
    path = url.removeprefix(toy.server.url(""))
    before = toy.server.requests[path]
    store = LocalStore(toy.fresh(reason.value) / "store")
    sentence = said(lambda: toy.filter_and_shard(toy.job(store, [url])))
    asked = toy.server.requests[path] - before
    broken = (f"it said: {sentence}",) if sentence else (*ends_in(store, url, reason), *as_undisturbed(toy, store, url))
    return Found(
        struck=f"{path} asked for {asked} times" if asked else "",
        held=f"{reason.value} in the ledger; all else as undisturbed",
        broken=broken,
    )


def ends_in(store: Store, url: str, reason: Reason) -> list[str]:
    """What is wrong with the link's row."""
    ended = [row.reason for row in rows_of(store) if row.link.url == url]
    return [] if ended == [reason] else [f"it ended in {[one.value for one in ended]}, not in {reason.value}"]


def as_undisturbed(toy: Toy, store: Store, *added: str) -> list[str]:
    """What differs from the undisturbed run, the rows of the `added` links left out."""
    return different_rows(toy.calm, store, added) + different_bytes(toy.calm, store)


def corrupt(toy: Toy) -> str:
    """A JPEG whose Huffman tables are zeroed."""
    return toy.server.add("/drill/corrupt.jpg", files.corrupt_jpeg(texture(20, SIDE, SIDE)), "image/jpeg")


def bomb(toy: Toy) -> str:
    """A PNG of few bytes and very many pixels."""
    return toy.server.add("/drill/bomb.png", many_pixels(BOMB_SIDE))


def many_pixels(side: int) -> bytes:
    """A whole PNG of `side` x `side` black pixels of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hostile(path: str, toy: Toy) -> str:
    """One of the hostile server's own."""
    return toy.server.url(path)


def redirect(toy: Toy) -> Found:
    """A redirect to an address inside: the row says so, and nobody knocked there."""
    with HttpServer(address="127.0.0.2") as inside:
        toy.server.private_target = inside.url("/pixel/secret.png")
        found = link(functools.partial(hostile, "/redirect-private/a.jpg"), Reason.PRIVATE_ADDRESS, toy)
        knocks = sum(inside.requests.values())
    broken = (f"the address inside was asked {knocks} times",) if knocks else ()
    return Found(struck=found.struck, held=f"nobody knocked inside; {found.held}", broken=(*found.broken, *broken))


def dead_resolver(probe: str, toy: Toy) -> Found:
    """Names that don't resolve, and neither does the `probe`: the run stops, and the same command goes on later."""
    urls = [f"http://drill-{number}.invalid/a.jpg" for number in range(NAMES)]
    store = LocalStore(toy.fresh("resolver") / "store")
    sentence = said(lambda: toy.filter(toy.job(store, urls, resolver_probe=probe)))
    burnt = [row for row in rows_of(store) if row.reason in (Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER)]
    broken = [] if "DNS" in sentence else [f"no word of DNS: {sentence or 'nothing was said'}"]
    broken += [f"{len(burnt) - 2} links were written off"] if len(burnt) > 2 else []  # two share a chunk with others
    again = said(lambda: toy.filter_and_shard(toy.job(store, urls)))
    broken += [f"afterwards it said: {again}"] if again else different_rows(toy.calm, store, urls)
    broken += [] if again else different_bytes(toy.calm, store, _OF_MORE_CHUNKS)
    return Found(
        struck=quoted(sentence),
        held="no link written off; the same command goes on, all as undisturbed",
        broken=tuple(broken),
    )


FAULTS: Final = (
    Fault(
        name="corrupt-jpeg",
        does="a JPEG with zeroed tables ends as corrupt",
        run=functools.partial(link, corrupt, Reason.CORRUPT),
    ),
    Fault(
        name="bomb",
        does="a PNG of 400 megapixels in 50 KB is refused by its header",
        run=functools.partial(link, bomb, Reason.TOO_MANY_PIXELS),
    ),
    Fault(
        name="dripping-host",
        does="a host that sends a byte five times a second ends as too_slow",
        run=functools.partial(link, functools.partial(hostile, "/drip/a.jpg"), Reason.TOO_SLOW),
    ),
    Fault(
        name="silent-host",
        does="a host that never answers ends as timed_out",
        run=functools.partial(link, functools.partial(hostile, "/never/a.jpg"), Reason.TIMED_OUT),
    ),
    Fault(
        name="redirect-private",
        does="a redirect to an address inside is not followed",
        run=redirect,
    ),
    Fault(
        name="dead-resolver",
        does="no name resolves: the run stops with one sentence and writes no link off",
        run=functools.partial(dead_resolver, "nobody.invalid"),
    ),
)
