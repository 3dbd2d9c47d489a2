"""Hosts: their addresses, looked up against the clock, and their slots, shared by every process of the machine.

`getaddrinfo` takes no time-out and can sit for half a minute on a dead name server, so lookups run on threads of
their own and the caller waits only as long as it has. Each name is looked up once per chunk: img2dataset asks anew
for every URL, and users saw a local resolver collapse at about 5,000 names a second (img2dataset's issue 360).

A slot is one locked byte of one empty file in the temporary folder, at an offset that is a hash of the host's
name. So the cap holds over all workers of this user on this machine, costs one system call and no file per host (a
list names millions), and the kernel frees the slots of a process that is killed.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import socket
import tempfile
import threading
from concurrent import futures
from pathlib import Path
from typing import Final

from curation.addresses import literal_address

#: Fewer names than this say nothing about the resolver: a short list may well be all dead.
_ENOUGH_NAMES: Final = 5
_PROBE_SECONDS: Final = 15.0
_MOST_SLOTS: Final = 1024

_UNKNOWN: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class UnknownHost(Exception):
    """The resolver answered: no such name, or no address under it."""


class NoAnswer(Exception):
    """The resolver did not answer, or not in time."""


class Resolver:
    """Names to addresses, each name once, on at most `threads` threads; counts what was answered."""

    def __init__(self, threads: int) -> None:
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._lock = threading.Lock()
        self._lookups: dict[str, futures.Future[tuple[str, ...]]] = {}
        self._asked: set[str] = set()
        self._answered = False

    def addresses(self, host: str, seconds: float) -> tuple[str, ...]:
        """All addresses of `host` in the order to try them, within `seconds`.

        Raises UnknownHost, or NoAnswer, after which the next call looks the name up again.
        """
        with self._lock:
            lookup = self._lookups.get(host)
            if lookup is None:
                lookup = self._lookups[host] = self._pool.submit(_look_up, host)
        try:
            found = lookup.result(seconds)
        except NoAnswer:
            self._forget(host, lookup)
            raise
        except futures.TimeoutError as late:
            raise NoAnswer(f"no answer within {seconds:.0f} s") from late
        finally:
            self._count(host, lookup)
        return found

    def _forget(self, host: str, lookup: futures.Future[tuple[str, ...]]) -> None:
        with self._lock:
            if self._lookups.get(host) is lookup:
                del self._lookups[host]

    def _count(self, host: str, lookup: futures.Future[tuple[str, ...]]) -> None:
        if literal_address(host) is not None:
            return  # says nothing about the resolver
        with self._lock:
            self._asked.add(host)
            self._answered |= lookup.done() and lookup.exception() is None

    def is_down(self, probe: str) -> bool:
        """Whether at least five names were asked for, none had an address, and neither has the name `probe`."""
        with self._lock:
            suspicious = len(self._asked) >= _ENOUGH_NAMES and not self._answered
        if not suspicious:
            return False
        try:
            return not self.addresses(probe, _PROBE_SECONDS)
        except (UnknownHost, NoAnswer):
            return True

    def asked(self) -> int:
        """How many different names were looked up, literal addresses left out."""
        return len(self._asked)

    def close(self) -> None:
        """Lets go of the threads; one that still sits in a lookup ends with it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> tuple[str, ...]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        kind = UnknownHost if error.errno in _UNKNOWN else NoAnswer
        raise kind(error.strerror or str(error)) from error
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


_guard: Final = threading.Lock()
_held: Final[set[tuple[int, int]]] = set()  # (process, offset): a fork's copy of the parent's entries is not its own


class HostSlots:
    """At most `per_host` slots per host, over all processes of this user that share the temporary folder."""

    def __init__(self, per_host: int) -> None:
        if not 1 <= per_host <= _MOST_SLOTS:
            raise ValueError(f"per_host is {per_host}: give 1 to {_MOST_SLOTS} simultaneous requests per host")
        self._per_host = per_host
        self._file = _slot_file(Path(tempfile.gettempdir()) / f"million-ird-hosts-{os.getuid()}.lock")

    def take(self, host: str) -> int | None:
        """A free slot of `host`, to be given back, or None where all are taken. Never waits."""
        first = int.from_bytes(hashlib.sha256(host.encode()).digest()[:6], "big") * _MOST_SLOTS
        with _guard:
            for slot in range(first, first + self._per_host):
                if (os.getpid(), slot) not in _held and self._locked(slot):
                    _held.add((os.getpid(), slot))
                    return slot
        return None

    def _locked(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except (BlockingIOError, PermissionError):  # another process has it; POSIX allows either
            return False
        return True

    def give_back(self, slot: int) -> None:
        """Frees a slot that `take` gave."""
        with _guard:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)
            _held.remove((os.getpid(), slot))


@functools.cache
def _slot_file(path: Path) -> int:
    """The lock file, opened once and never closed: closing any descriptor of it would drop all of its locks."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
