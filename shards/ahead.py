"""Read-ahead: the shards that come next are brought into the cache, several at a time, while others are read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from shards.cache import Cache, WrongBytes, is_full
from shards.manifest import Shard
from shards.store import Store, StoreError

_AT_ONCE: Final = 4  # shards on their way
_SOON: Final = 1.0  # seconds until a shard is tried again that another process brings, or that had no room
_LATER: Final = 30.0  # seconds until one is that could not be had
_log = logging.getLogger(__name__)


class ReadAhead:
    """Brings shards in the order in which they are wanted. `troubles`: what could not be brought, and why.

    Its threads are daemons: a program that ends does not wait for a shard that nobody wants any more.
    """

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store, self._cache = store, cache
        self._changed = threading.Condition()
        self._wanted: list[Shard] = []
        self._flying: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._open = True
        self.troubles: dict[str, str] = {}
        for _ in range(_AT_ONCE):
            threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def want(self, shards: Sequence[Shard]) -> None:
        """From now on these are wanted, the first of them first, as far as the cache can hold them together."""
        held, wanted = 0, []
        for shard in shards:
            held += shard.bytes
            if held > self._cache.limit:  # it would push out what is wanted before it
                break
            wanted.append(shard)
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()

    def close(self) -> None:
        """Lets the threads end, each after the shard it is at."""
        with self._changed:
            self._open, self._wanted = False, []
            self._changed.notify_all()

    def _work(self) -> None:
        while (shard := self._next()) is not None:
            pause = _SOON
            try:
                self._cache.fetch(self._store, shard)
            except (WrongBytes, FileNotFoundError, StoreError) as error:
                pause = _LATER
                self._note(shard.name, str(error))
            except OSError as error:
                self._give_up(error)
            with self._changed:
                self._flying.discard(shard.sha256)
                self._not_before[shard.sha256] = time.monotonic() + pause

    def _next(self) -> Shard | None:
        """The first that is wanted and not here. Looking for one that is here keeps it from being let go."""
        with self._changed:
            while self._open:
                missing = [shard for shard in self._wanted if self._cache.find(shard) is None]
                for shard in missing:
                    if shard.sha256 not in self._flying and self._is_due(shard):
                        self._flying.add(shard.sha256)
                        return shard
                self._changed.wait(_SOON if missing else None)
        return None

    def _is_due(self, shard: Shard) -> bool:
        return time.monotonic() >= self._not_before.get(shard.sha256, 0.0)

    def _give_up(self, error: OSError) -> None:
        """This machine's disk is the trouble: no more is brought, and samples are read from where the set lies."""
        what = "no space left" if is_full(error) else f"can't be used ({error.strerror or error})"
        self._note("cache", f"{self._cache.folder}: {what}, samples are read from {self._store.root} one by one")
        self.close()

    def _note(self, name: str, cause: str) -> None:
        self.troubles[name] = cause
        _log.warning("not read ahead: %s", cause)
