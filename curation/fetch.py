"""Links to bytes: a chunk of URLs through img2dataset's downloader, with a transport of our own.

What runs is img2dataset's `Downloader`: its thread pool, its back-pressure (at most 2 x threads samples between
download and writer), its account per status, its `Resizer` (mode "no", all re-encoding off: bytes pass untouched)
and its reading of X-Robots-Tag. Three things are put in place of its own, by running `download_shard` with other
globals, so that img2dataset elsewhere in the process is left as it is:

* `download_image_with_retry`, whose `urlopen` has no deadline, no cap on bytes and no address check, builds an SSL
  context per URL, says it is Firefox and retries at once: `curation.transport` and `curation.turns`;
* its sample writer: a queue of a few places that the caller empties, so a chunk is never held as a whole;
* `print` and `traceback`, with which it would drop a sample that fails inside: here that ends the call.

Its shard file and statistics live in fsspec's memory file system: nothing on disk, nothing to clean up after a
kill.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import queue
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType, SimpleNamespace, TracebackType
from typing import Any, Final

import fsspec
import pyarrow as pa

from curation.fetch_settings import FetchSettings
from curation.glance import Look, unseen
from curation.hosts import HostSlots, Resolver
from curation.records import Fetched, Link, Reason
from curation.transport import Transport
from curation.turns import Turn, Turns

__all__ = ["FetchSettings", "ResolverDown", "fetch"]

_DNS: Final = frozenset({Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER})
_READY: Final = 8  # bodies that wait for the caller, beside those img2dataset holds

_log = logging.getLogger(__name__)


class ResolverDown(RuntimeError):
    """Not one name of a chunk could be resolved: this machine's DNS is broken, not the links."""


def fetch(links: Sequence[Link], settings: FetchSettings, look: Look = unseen) -> Iterator[Fetched]:
    """Downloads `links`: exactly one `Fetched` for each, in the order they end, bytes exactly as they came.

    What `look` refuses by a body's first bytes ends with that refusal, and the rest of it is not read.

    The caller sets the pace: while it works on one, at most 2 x `settings.threads` + 8 others are held. Closing
    the iterator early stops the downloads and waits for the requests under way, at most `settings.read_timeout`
    seconds. Links whose names could not be resolved come last.

    Raises ResolverDown instead of yielding those, where no name of at least five could be resolved and neither
    could `settings.resolver_probe`. Raises OSError where this machine ran out of descriptors, ports or memory.
    """
    if not links:
        return
    run = _Run(links, settings, look)
    unresolved: list[Fetched] = []
    try:
        for fetched in run.results():
            if fetched.refusal is not None and fetched.refusal.reason in _DNS:
                unresolved.append(fetched)
            else:
                yield fetched
        if unresolved and run.resolver.is_down(settings.resolver_probe):
            raise ResolverDown(
                f"none of {run.resolver.asked()} host names could be resolved, and neither could "
                f"{settings.resolver_probe}: see to this machine's DNS (/etc/resolv.conf), then start again"
            )
        yield from unresolved
    finally:
        run.close()


class _Failures:
    """Carries the first exception of another thread to the caller's: `with failures:` swallows it, and stops."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.first: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.add(error)
        return True

    def add(self, error: BaseException | None) -> None:
        self.first = self.first or error
        self._stop()


class _Run:
    """One chunk on its way through img2dataset, on a thread of its own."""

    def __init__(self, links: Sequence[Link], settings: FetchSettings, look: Look) -> None:
        self._links = links
        self._settings = settings
        self._stopped = threading.Event()
        self._ready: queue.Queue[Fetched | None] = queue.Queue(_READY)
        self._failures = _Failures(self._stop)
        self._ended: dict[int, Turn] = {}
        self.resolver = Resolver(settings.threads)
        self._turns = Turns([link.url for link in links], settings, HostSlots(settings.per_host))
        self._img2dataset = _img2dataset()
        self._transport = Transport(settings, self.resolver, self._img2dataset.is_disallowed, look)
        self._thread = threading.Thread(target=self._download, name="img2dataset", daemon=True)
        self._thread.start()

    def results(self) -> Iterator[Fetched]:
        """What comes, until all came. Raises what went wrong on the other threads."""
        count = 0
        while (fetched := self._ready.get()) is not None:
            count += 1
            yield fetched
        if self._failures.first is not None:
            raise self._failures.first
        if count != len(self._links):
            raise RuntimeError(f"img2dataset gave back {count} of {len(self._links)} links: this is a defect")

    def close(self) -> None:
        """Stops what still runs, and waits for it."""
        self._stop()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
        self.resolver.close()

    def _stop(self) -> None:
        self._stopped.set()
        self._turns.stop()

    def _download(self) -> None:
        folder = f"memory://million-ird/{uuid.uuid4().hex}"
        files = fsspec.filesystem("memory")
        try:
            with self._failures:
                files.pipe_file(f"{folder}/links.arrow", _shard(self._links))
                self._downloader(folder)((0, f"{folder}/links.arrow"))
                _log.debug("img2dataset: %s", files.cat_file(f"{folder}/0_stats.json").decode())
        finally:
            with contextlib.suppress(FileNotFoundError):
                files.rm(folder, recursive=True)
            self._ready.put(None)

    def _downloader(self, folder: str) -> Callable[[tuple[int, str]], None]:
        """img2dataset's `download_shard`, set up so that bytes pass untouched, with our parts in its globals."""
        resizer = importlib.import_module("img2dataset.resizer").Resizer(
            image_size=0, resize_mode="no", resize_only_if_bigger=False, disable_all_reencoding=True
        )
        downloader = self._img2dataset.Downloader(
            sample_writer_class=lambda *_: SimpleNamespace(write=self._hand_over, close=lambda: None),
            resizer=resizer,
            thread_count=min(self._settings.threads, len(self._links)),
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["url", "index"],
            timeout=self._settings.read_timeout,
            number_sample_per_shard=len(self._links),
            oom_shard_count=1,
            compute_hash=None,
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=self._settings.robot,
            disallowed_header_directives=self._settings.opt_outs,
        )
        return _rewired(
            self._img2dataset,
            downloader,
            download_image_with_retry=self._one,
            traceback=SimpleNamespace(print_exc=lambda: self._failures.add(sys.exc_info()[1])),
            print=lambda *_: None,
        )

    def _one(self, row: tuple[int, str], **_: object) -> tuple[int, io.BytesIO | None, str | None]:
        """What img2dataset's threads call, once per link: brings one link to its end, whichever is in turn.

        Returns as `download_image` does: the link's place in the chunk, its bytes, an error message.
        """
        with self._failures:
            while (turn := self._turns.take()) is not None:
                body, is_final = self._ask(turn)
                if is_final:
                    self._ended[turn.index] = turn
                    return turn.index, body, None if turn.refusal is None else turn.refusal.reason.value
        return row[0], None, "stopped"

    def _ask(self, turn: Turn) -> tuple[io.BytesIO | None, bool]:
        """One request, or none where the host was given up: the body, and whether this ended the link."""
        if turn.slot is None:
            return None, True
        try:
            answer = self._transport.get(turn.url, self._turns.left(turn))
        except BaseException:
            self._turns.give_back(turn)  # or this process would be short of a slot for good
            raise
        return answer.body, self._turns.settle(turn, answer)

    def _hand_over(self, body: bytes | None, _key: str, _caption: str | None, meta: dict[str, Any]) -> None:
        """img2dataset's sample writer."""
        turn = self._ended.pop(meta["index"], None)
        if self._stopped.is_set():
            return
        if turn is None:
            raise RuntimeError("img2dataset downloaded a link by itself: this is a defect")
        key = self._links[turn.index].key
        self._ready.put(
            Fetched(
                key=key,
                body=body,
                refusal=turn.refusal,
                header=turn.header,
                attempts=turn.attempts,
                seconds=turn.spent,
                bytes_read=turn.bytes_read,
                bytes_spared=turn.bytes_spared,
            )
        )


def _img2dataset() -> ModuleType:
    """img2dataset's downloader. Imported late: it brings pandas, OpenCV and wandb, 4 s of CPU."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # which would ask PyPI for its newest version
    return importlib.import_module("img2dataset.downloader")


def _shard(links: Sequence[Link]) -> bytes:
    """The chunk as img2dataset reads one: an Arrow file."""
    table = pa.table({"url": [link.url for link in links], "index": range(len(links))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _rewired(module: ModuleType, downloader: Any, **names: object) -> Callable[[tuple[int, str]], None]:
    """`downloader.download_shard` with `names` in place of the globals of its module, which stays as it is."""
    method = type(downloader).download_shard
    if not hasattr(module, "download_image_with_retry"):
        raise RuntimeError("this img2dataset has no download_image_with_retry: install img2dataset 1.47")
    return FunctionType(method.__code__, {**vars(module), **names}, method.__name__).__get__(downloader)
