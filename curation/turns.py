"""Whose turn it is: the order in which a chunk's URLs are asked for, again where that may help.

img2dataset gives each of its threads the next URL of the list. With a cap per host that wastes them: a host that
never answers, with half of the list, would soon hold every thread, four in a request and the rest waiting behind
it. Here a free thread asks for whatever may run now, hosts in turn, and no thread holds a slot while it waits:

* a host at its cap, or resting (Retry-After, time-outs), is passed over;
* a redirect gives its slot back and queues at the host it points to;
* a transient failure goes to the end with a time before which it isn't tried again: first every URL once, then the
  failures, after `backoff` seconds, twice that, and so on, or what the server's Retry-After says;
* a host whose URLs timed out `host_strikes` times in a row (URLs in flight together count once) is given up: its
  untried URLs end as transient failures with no request made, for a later run to take up.

So a call ends within `deadline` x (URLs / threads + most URLs of one host / per_host) + the rests and back-offs,
all capped; for a host that is dead, `host_strikes` x per_host stands in for its URLs.
"""

from __future__ import annotations

import heapq
import threading
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from curation.fetch_settings import FetchSettings
from curation.hosts import HostSlots
from curation.records import TRANSIENT, Header, Reason, Refusal, Stage
from curation.transport import Answer, parse_target

#: Failures that cost a thread its time: these are a host's strikes.
_COSTLY: Final = frozenset({Reason.TIMED_OUT, Reason.TOO_SLOW, Reason.CONNECT_FAILED, Reason.DNS_NO_ANSWER})
#: Seconds between looks at slots that another process may have given back.
_POLL: Final = 0.1


@dataclass(slots=True, eq=False)
class Turn:
    """One URL of the chunk on its way: `url` is where it stands now, after redirects."""

    index: int
    start: str
    url: str
    host: str
    attempts: int = 0  # tries begun, a redirect's hops not counted
    hops: int = 0
    spent: float = 0.0  # seconds of work
    began: float = 0.0  # clock time of the request that runs
    slot: int | None = None
    refusal: Refusal | None = None
    header: Header | None = None
    bytes_read: int = 0
    bytes_spared: int = 0


@dataclass(slots=True, eq=False)
class _Host:
    name: str
    waiting: deque[Turn] = field(default_factory=deque)
    rests_until: float = 0.0
    strikes: int = 0
    struck: float = 0.0  # clock time of the last strike
    given_up: Refusal | None = None


class Turns:
    """The queue between a chunk's URLs and the threads that ask for them."""

    def __init__(self, urls: Sequence[str], settings: FetchSettings, slots: HostSlots) -> None:
        self._settings = settings
        self._slots = slots
        self._changed = threading.Condition()
        self._stopped = False
        self._hosts: dict[str, _Host] = {}
        self._order: deque[_Host] = deque()  # those with URLs waiting, the next in turn first
        self._later: list[tuple[float, int, Turn]] = []  # a heap: not before, index, turn
        for index, url in enumerate(urls):
            self._queue(Turn(index=index, start=url, url=url, host=_host_of(url)))

    def take(self) -> Turn | None:
        """The next URL to ask for, waiting until there is one; None once stopped.

        One that holds no slot is not to be asked for: its host was given up, and `refusal` says why.
        """
        with self._changed:
            while not self._stopped:
                self._wake()
                turn = self._next()
                if turn is not None:
                    return turn
                self._changed.wait(_POLL)
        return None

    def left(self, turn: Turn) -> float:
        """Seconds of work that are left to a URL."""
        return self._settings.deadline - turn.spent

    def settle(self, turn: Turn, answer: Answer) -> bool:
        """Gives the slot back. True where `answer` is the URL's last word, False where it is queued again."""
        now = time.monotonic()
        with self._changed:
            self.give_back(turn)
            turn.spent += now - turn.began
            turn.refusal, turn.header = answer.refusal, answer.header
            turn.bytes_read += answer.bytes_read
            turn.bytes_spared = answer.bytes_spared
            host = self._hosts[turn.host]
            self._mark(host, turn, answer, now)
            self._changed.notify()
            if answer.location is not None:
                return not self._follow(turn, answer.location)
            return not self._try_later(host, turn, answer.pause, now)

    def give_back(self, turn: Turn) -> None:
        """Frees the slot that a URL holds."""
        assert turn.slot is not None
        self._slots.give_back(turn.slot)
        turn.slot = None

    def stop(self) -> None:
        """Lets every waiting thread go; nothing is handed out any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _queue(self, turn: Turn) -> None:
        host = self._hosts.setdefault(turn.host, _Host(turn.host))
        if not host.waiting:
            self._order.append(host)
        if turn.hops:
            host.waiting.appendleft(turn)  # what is under way comes before what is not
        else:
            host.waiting.append(turn)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._queue(heapq.heappop(self._later)[2])

    def _next(self) -> Turn | None:
        now = time.monotonic()
        for _ in range(len(self._order)):
            host = self._order.popleft()
            turn = self._of(host, now)
            if host.waiting:
                self._order.append(host)
            if turn is not None:
                return turn
        return None

    def _of(self, host: _Host, now: float) -> Turn | None:
        if host.given_up is not None:
            turn = host.waiting.popleft()
            turn.refusal = turn.refusal or host.given_up  # one that was tried keeps what it met
            return turn
        if host.rests_until > now:
            return None
        slot = self._slots.take(host.name)
        if slot is None:
            return None
        turn = host.waiting.popleft()
        turn.slot = slot
        turn.began = now
        turn.attempts += turn.hops == 0
        return turn

    def _mark(self, host: _Host, turn: Turn, answer: Answer, now: float) -> None:
        """Keeps the host's account: strikes, rests, and when it is given up."""
        if answer.pause is not None:
            self._rest(host, answer, answer.pause, now)
        if answer.refusal is None or answer.refusal.reason not in _COSTLY:
            host.strikes = 0
            return
        if turn.began <= host.struck:
            return  # it was in flight with the one that struck last
        host.strikes += 1
        host.struck = now
        host.rests_until = max(host.rests_until, now + self._settings.backoff * 2 ** (host.strikes - 1))
        if host.strikes >= self._settings.host_strikes:
            host.given_up = Refusal(
                reason=answer.refusal.reason,
                stage=Stage.FETCH,
                detail=f"{host.name} was given up after {host.strikes} failures in a row",
            )

    def _rest(self, host: _Host, answer: Answer, pause: float, now: float) -> None:
        if pause <= self._settings.max_retry_after:
            host.rests_until = max(host.rests_until, now + pause)
        elif answer.refusal is not None:
            detail = f"{host.name} asked to be left alone for {pause:.0f} s"
            host.given_up = Refusal(reason=answer.refusal.reason, stage=Stage.FETCH, detail=detail)

    def _follow(self, turn: Turn, location: str) -> bool:
        """Queues a redirect's next hop; False, with a refusal, where there is to be none."""
        if turn.hops >= self._settings.max_redirects:
            detail = f"more than {self._settings.max_redirects} redirects"
            turn.refusal = Refusal(reason=Reason.HTTP_PROTOCOL_ERROR, stage=Stage.FETCH, detail=detail)
            return False
        if self.left(turn) <= 0:
            turn.refusal = Refusal(reason=Reason.TOO_SLOW, stage=Stage.FETCH, detail="redirected too slowly")
            return False
        turn.hops += 1
        turn.url = location
        turn.host = _host_of(location)
        self._queue(turn)
        return True

    def _try_later(self, host: _Host, turn: Turn, pause: float | None, now: float) -> bool:
        """Puts a transient failure off for another try, where it has one left."""
        hopeless = turn.refusal is None or turn.refusal.reason not in TRANSIENT or host.given_up is not None
        if hopeless or turn.attempts >= self._settings.attempts or self.left(turn) < self._settings.read_timeout:
            return False
        delay = max(pause or 0.0, self._settings.backoff * 2 ** (turn.attempts - 1) * _jitter(turn))
        turn.url, turn.host, turn.hops = turn.start, _host_of(turn.start), 0
        heapq.heappush(self._later, (now + delay, turn.index, turn))
        return True


def _host_of(url: str) -> str:
    try:
        return parse_target(url).host
    except ValueError:
        return ""  # the request says what is wrong with it


def _jitter(turn: Turn) -> float:
    """1 to 1.5, a function of URL and try: failures that came together don't come back together."""
    return 1 + zlib.crc32(f"{turn.attempts} {turn.start}".encode("utf-8", "replace")) / 2**33
