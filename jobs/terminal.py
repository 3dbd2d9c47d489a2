"""What a job says: a progress bar on a terminal, plain lines elsewhere, one sentence when it can't go on.

And what it is told, where more than one job is told it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from ray.exceptions import RayTaskError
from tqdm import tqdm

from curation.fetch import ResolverDown
from shards.store import Store, open_store

PLAIN_SECONDS: Final = 10.0
STOPPED: Final = 130  # the shell's exit status for Ctrl-C
TERMINATED: Final = 143  # and for SIGTERM
CANNOT: Final = 2
BYTES: Final = "B"


class Bar:
    """Progress over `unit`s. Call it with (total, done, note); on a pipe it prints a line every ten seconds.

    Bytes ("B") are shown as MB and the like, with their rate and the time left. `paced`: the notes say the pace, and
    their place on a narrow terminal is not spent on the bar's own.
    """

    def __init__(self, label: str, unit: str, *, paced: bool = False) -> None:
        self._label, self._unit = label, unit
        self._form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]" if paced else None
        self._bar: tqdm | None = None
        self._said = 0.0
        self._last = ""
        self._begun = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The last word, where what comes next has a bar of its own."""
        if self._bar is not None:
            self._bar.close()
        elif self._last:
            print(self._last, flush=True)
        self._bar, self._last = None, ""

    def __call__(self, total: int, done: int, note: str = "") -> None:
        if _STOP.is_set():
            raise KeyboardInterrupt
        if sys.stderr.isatty():
            self._draw(total, done, note)
            return
        line = f"{self._label}: {self._amount(total, done)}{', ' + note if note else ''}"
        if time.monotonic() - self._said < PLAIN_SECONDS:
            self._last = line
            return
        self._said, self._last = time.monotonic(), ""
        print(line, flush=True)

    def _amount(self, total: int, done: int) -> str:
        if self._unit != BYTES:
            return f"{done}/{total} {self._unit}s"
        rate = done / max(time.monotonic() - self._begun, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        return f"{scaled(done)}B of {scaled(total)}B, {scaled(rate)}B/s{left}"

    def _draw(self, total: int, done: int, note: str) -> None:
        if self._bar is None:
            scaled = self._unit == BYTES
            self._bar = tqdm(
                total=total,
                initial=done,  # what an earlier run did was not done at this one's pace
                desc=self._label,
                unit=self._unit,
                unit_scale=scaled,
                dynamic_ncols=True,
                bar_format=self._form,
            )
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()


def parser(program: str, description: str, example: str) -> argparse.ArgumentParser:
    """A command's parser; its help ends with an example, and keeps the line breaks of both."""
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    cells = [list(map(str, head)), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def shown(value: float) -> str:
    """Three digits at least, none behind the point that say nothing."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def scaled(amount: float) -> str:
    """`12.3 M` of 12,300,000: three digits and the letter of a thousand, a million, ..."""
    for letter in ("", "k", "M", "G"):
        if amount < 999.5:
            return f"{shown(amount)} {letter}"
        amount /= 1000
    return f"{shown(amount)} T"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`: two units at most."""
    whole = round(seconds)
    for unit, length, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {lesser}"
    return f"{whole} s"


def ratio(value: float, base: float) -> str:
    """`value` as a multiple of `base`."""
    return f"{value / base:.2f}" if base else "-"


def shares(counts: Mapping[str, int], order: Sequence[str], head: str) -> str:
    """A table of counts with their share of the whole, in `order`, the absent left out."""
    whole = sum(counts.values()) or 1
    rows = [(name, counts[name], f"{100 * counts[name] / whole:.1f} %") for name in order if counts.get(name)]
    return table((head, "rows", "share"), [*rows, ("all", sum(counts.values()), "")])


def out_store(root: str, endpoint_url: str | None) -> Store:
    """The store of --out. Raises ValueError for a relative folder in a submitted Ray job: it lies in a passing copy."""
    if "://" not in root and not Path(root).is_absolute() and "working_dir_files" in Path.cwd().parts:
        raise ValueError(f"--out {root} would lie in Ray's copy of the working folder: give s3:// or an absolute path")
    if root.startswith(("http://", "https://")):
        raise ValueError(f"{root} can only be read: name a folder or s3://bucket/prefix to write to")
    return open_store(root, endpoint_url)


def threshold(text: str) -> tuple[str, float]:
    """The metric and the bound of a --threshold. Raises ValueError for another form than METRIC=NUMBER."""
    metric, _, bound = text.partition("=")
    try:
        return metric.strip(), float(bound)
    except ValueError as error:
        raise ValueError(f"--threshold {text}: write METRIC=NUMBER, such as niqe=5") from error


def names(text: str) -> list[str]:
    """What a flag lists with commas between."""
    return [name.strip() for name in text.split(",")]


def kept_so_far(reasons: Counter[str]) -> str:
    """The bar's note."""
    return f"{reasons['kept']} kept"


#: Set once Ctrl-C was pressed. What it raises may be lost: Python drops an exception that rises in a destructor.
_STOP = threading.Event()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in here, and from then on to the end nothing is said on stderr.

    Ray's own threads write there, past Python, what they think of the tasks that were let go.
    """
    _STOP.clear()
    kept = os.dup(2)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        _STOP.set()
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        os.dup2(kept, 2)
        os.close(kept)


class Terminated(Exception):
    """SIGTERM came, and the work was ended in good order; the message says where."""


def guarded(program: str, work: Callable[[], None], again: str = "goes on from here") -> int:
    """Runs `work`; what a user can mend is said in one sentence. Returns the exit status.

    `again`: what the same command does after Ctrl-C or SIGTERM.
    """
    try:
        with _stoppable():
            work()
    except KeyboardInterrupt:
        return _stopped(program, again)
    except Terminated as where:
        print(f"{program}: {where}. The same command {again}.", file=sys.stderr)
        return TERMINATED
    except (ValueError, RuntimeError, OSError) as error:
        if _STOP.is_set():  # the same Ctrl-C ended other processes of this job, and that came up first
            return _stopped(program, again)
        cause = error.cause if isinstance(error, RayTaskError) else error
        sentence = _sentence(cause)
        if not sentence:
            raise
        print(f"{program}: {sentence}", file=sys.stderr)
        return CANNOT
    return 0


def _stopped(program: str, again: str) -> int:
    print(f"\n{program}: stopped. The same command {again}.", file=sys.stderr)
    return STOPPED


def _sentence(error: BaseException) -> str:
    """What a user can do something about, in one line; empty for what is a fault of the program."""
    if isinstance(error, OSError) and error.strerror:  # the system's word: a full /tmp, a broken disk
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) if isinstance(error, _SAID) else ""


#: What carries its own remedy: a user's mistake, or an outside world that can't be worked with.
_SAID: tuple[type[BaseException], ...] = (ValueError, ResolverDown)
