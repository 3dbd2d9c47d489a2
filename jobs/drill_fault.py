"""What a fault of the drill is, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from jobs.drill_toy import Toy

TRIES: Final = 3  # of a fault that came too late


class Verdict(str, Enum):
    """What the table says."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIPPED = "skipped"  # neither: it can't be made to happen here


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was seen. `struck`: how the fault is known to have happened; empty: it did not, and nothing is proved.

    `held`: what came out as it has to. `broken`: what didn't.
    """

    struck: str
    held: str
    broken: tuple[str, ...] = ()


def possible(toy: Toy) -> str:
    """Of a fault that can be made to happen everywhere."""
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One row of the table. `hinders`: why it can't be made to happen here; empty where it can."""

    name: str
    does: str  # what is injected, and what has to hold
    run: Callable[[Toy], Found]
    hinders: Callable[[Toy], str] = possible


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One row of the table, as it came out."""

    name: str
    verdict: Verdict
    seconds: float
    words: str


def tried(fault: Fault, toy: Toy) -> Result:
    """Injects the fault and judges what was found. One that came too late is tried again; one that never came fails.

    Whatever a fault's run raises is what it found: the others are still to be tried.
    """
    begun = time.monotonic()
    if why := fault.hinders(toy):
        return Result(name=fault.name, verdict=Verdict.SKIPPED, seconds=0.0, words=why)
    try:
        found = _found(fault, toy)
    except Exception as error:  # noqa: BLE001 - a fault that breaks the program is what the drill looks for
        found = Found(struck="it broke off", held="", broken=(f"{type(error).__name__}: {error}",))
    verdict, words = judged(found)
    return Result(name=fault.name, verdict=verdict, seconds=time.monotonic() - begun, words=words)


def judged(found: Found) -> tuple[Verdict, str]:
    """The verdict and its words. What never happened is no PASS."""
    if not found.struck:
        return Verdict.FAIL, f"the fault did not happen, {TRIES} times: nothing is proved"
    if found.broken:
        return Verdict.FAIL, "\n".join((found.struck, *found.broken))
    return Verdict.PASS, f"{found.struck}\n{found.held}"


def quoted(sentence: str) -> str:
    """What a job said; empty for nothing."""
    return f"“{sentence}”" if sentence else ""


def _found(fault: Fault, toy: Toy) -> Found:
    for _ in range(TRIES):
        found = fault.run(toy)
        if found.struck:
            break
    return found
