"""Faults of stores: an S3 that is busy, hangs up or no longer knows us, tars cut in half, a disk that is full."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.drill_compare import different_sets
from jobs.drill_fault import Fault, Found, quoted
from jobs.drill_links import as_undisturbed
from jobs.drill_toy import Toy, said
from jobs.s3_proxy import S3Proxy, What
from shards import fsck
from shards.fsck import Kind
from shards.manifest import FOLDER, MANIFEST, read_manifest
from shards.store import LocalStore, Store
from shards.stream import Cache, Plan, Stream

PLAN: Final = Plan(batch=9, window=18, crop=64, seed=1)  # half of a shard leaves some of each batch
_PUT, _GET = r"(PUT|POST) .*train-", r"GET .*train-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What the proxy does to so many requests for shards. `at`: bytes of the body before it."""

    what: What
    match: str
    times: int
    at: int = 1000


def flaky_s3(troubles: Sequence[Trouble], toy: Toy) -> Found:
    """Publishing to and streaming from an S3 that is in trouble: neither may notice."""
    assert toy.s3 is not None and toy.s3.endpoint_url is not None, "hinders() says so"
    with S3Proxy(toy.s3.endpoint_url) as proxy:
        target = toy.target("s3", proxy.endpoint_url)
        for one in troubles:
            proxy.fail(one.what, times=one.times, match=one.match, at=one.at)
        sentence = said(lambda: toy.publish(target))
        broken = [f"publishing said: {sentence}"] if sentence else different_stream(toy.calm, target)
        left = [fault for fault in proxy.faults if fault.times]
        proxy.heal()
        broken += [] if sentence else different_sets(toy.calm, target)
    struck = sum(one.times for one in troubles)
    names = sorted({one.what.name for one in troubles})
    return Found(
        struck="" if left or not struck else f"{struck} requests met {', '.join(names)}",
        held="published whole, streamed alike",
        broken=tuple(broken),
    )


def expired(times: int, toy: Toy) -> Found:
    """Credentials that expire while shards are sent; then they are renewed and the same command is given."""
    assert toy.s3 is not None and toy.s3.endpoint_url is not None, "hinders() says so"
    with S3Proxy(toy.s3.endpoint_url) as proxy:
        target = toy.target("expired", proxy.endpoint_url)
        proxy.fail(What.EXPIRED, times=times, match=_PUT)
        sentence = said(lambda: toy.publish(target))
        proxy.heal()
        broken = [] if "credentials" in sentence and "renew" in sentence else [f"no word of the remedy: {sentence}"]
        broken += ["a manifest stood over half a set"] if target.exists(MANIFEST) else []
        again = said(lambda: toy.publish(target))
        broken += [f"afterwards it said: {again}"] if again else different_sets(toy.calm, target)
    return Found(
        struck=quoted(sentence),
        held="no manifest then; the same command published the set",
        broken=tuple(broken),
    )


def torn_target(share: float, toy: Toy) -> Found:
    """A published shard loses its end: readers name it and go on, fsck finds it, publishing mends it."""
    target = toy.target("torn")
    toy.publish(target)
    name = FOLDER + read_manifest(target).shards[0].name
    body = target.read(name)
    target.write(name, body[: int(len(body) * share)])
    _, whole = streamed(toy.calm)
    skipped, batches = streamed(target)
    findings = fsck.check(target, lambda total, done: None)
    broken = [] if len(batches) == len(whole) else [f"{len(batches)} batches came of {len(whole)}"]
    broken += [] if skipped and all(name.removeprefix(FOLDER) in one for one in skipped) else ["no reader named it"]
    broken += [] if _names(findings, name) else ["fsck did not find it"]
    again = said(lambda: toy.publish(target))
    broken += [f"publishing said: {again}"] if again else different_sets(toy.calm, target)
    return Found(
        struck=f"{name} cut to {int(len(body) * share)} of {len(body)} bytes" if share < 1 else "",
        held=f"{sum(skipped.values())} samples skipped by name, fsck found it, publishing mended it",
        broken=tuple(broken),
    )


def torn_cache(share: float, toy: Toy) -> Found:
    """Shards in the cache lose their ends: what they lack is read from where they came."""
    cache = Cache(folder=toy.fresh("cache"))
    for shard in read_manifest(toy.calm).shards:
        cache.fetch(toy.calm, shard)
    tars = sorted(cache.folder.glob("*.tar"))
    for path in tars:
        os.truncate(path, int(path.stat().st_size * share))
    broken = different_stream(toy.calm, toy.calm, cache)
    return Found(
        struck=f"{len(tars)} cached shards cut to {share:.0%}" if tars and share < 1 else "",
        held="the same batches, none skipped",
        broken=tuple(broken),
    )


def full_disk(size: str, toy: Toy) -> Found:
    """The store's disk is full in the midst of the filter; with room the same command goes on."""
    disk = toy.fresh("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        store = LocalStore(disk / "store")
        sentence = said(lambda: toy.filter_and_shard(toy.job(store)))
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        broken = [] if "space" in sentence else [f"no word of the disk: {sentence}"]
        again = said(lambda: toy.filter_and_shard(toy.job(store)))
        broken += [f"afterwards it said: {again}"] if again else as_undisturbed(toy, store)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
    return Found(
        struck=quoted(sentence),
        held="with room the same command went on, all as undisturbed",
        broken=tuple(broken),
    )


def streamed(source: Store, cache: Cache | None = None) -> tuple[dict[str, int], list[str]]:
    """What an epoch had to skip, by cause, and each of its batches in a hash."""
    endpoint_url = getattr(source, "endpoint_url", None)
    stream = Stream(source.root, PLAN, cache=cache or Cache(folder=Path(), limit=0), endpoint_url=endpoint_url)
    with contextlib.closing(stream), contextlib.redirect_stderr(io.StringIO()):  # it warns of each skipped one
        batches = [
            hashlib.sha256(repr(one.samples).encode() + one.pixels.numpy().tobytes()).hexdigest() for one in stream
        ]
    return dict(stream.skipped), batches


def different_stream(calm: Store, other: Store, cache: Cache | None = None) -> list[str]:
    """Between what two sets give a trainer."""
    skipped, batches = streamed(other, cache)
    found = [f"{count} samples skipped: {cause}" for cause, count in skipped.items()]
    return found + ([] if batches == streamed(calm)[1] else ["other batches came"])


def _names(findings: Sequence[fsck.Finding], name: str) -> bool:
    return any(one.kind is Kind.TRUNCATED and name.endswith(one.name) for one in findings)


def _no_proxy(toy: Toy) -> str:
    """A proxy makes the faults: what stands behind it has to take requests that were signed for the proxy's address."""
    if toy.s3 is None or (toy.s3.endpoint_url or "").startswith("http://"):
        return toy.no_s3
    return "over TLS nothing can stand between: give an --endpoint-url with http://, or leave out --s3"


def _no_small_disk(toy: Toy) -> str:
    if toy.machines > 1:
        return "on one machine alone: its workers have to see the small disk"
    where = toy.fresh("try")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)], capture_output=True).returncode:
        return "needs root, to mount a small disk"
    subprocess.run(["umount", str(where)], check=False)
    return ""


FAULTS: Final = (
    Fault(
        name="s3-slow-down",
        does="503 SlowDown, longer than botocore tries: publishing and streaming come through",
        run=functools.partial(
            flaky_s3,
            (Trouble(what=What.SLOW_DOWN, match=_PUT, times=6), Trouble(what=What.SLOW_DOWN, match=_GET, times=3)),
        ),
        hinders=_no_proxy,
    ),
    Fault(
        name="s3-resets",
        does="connections reset in the midst of bodies, and answers lost",
        run=functools.partial(
            flaky_s3,
            (
                Trouble(what=What.RESET_REQUEST, match=_PUT, times=2),
                Trouble(what=What.LOSE_ANSWER, match=_PUT, times=1),
                Trouble(what=What.RESET_RESPONSE, match=_GET, times=2),
            ),
        ),
        hinders=_no_proxy,
    ),
    Fault(
        name="expired-credentials",
        does="ExpiredToken while shards are sent: one sentence, no manifest, and it goes on",
        run=functools.partial(expired, -1),
        hinders=_no_proxy,
    ),
    Fault(
        name="torn-shard",
        does="a published tar cut in half: skipped by name, found, mended",
        run=functools.partial(torn_target, 0.5),
    ),
    Fault(
        name="torn-cache",
        does="cached tars cut in half: the same batches",
        run=functools.partial(torn_cache, 0.5),
    ),
    Fault(
        name="full-disk",
        does="no space left for the store: one sentence, and with room it goes on",
        run=functools.partial(full_disk, "1m"),
        hinders=_no_small_disk,
    ),
)
