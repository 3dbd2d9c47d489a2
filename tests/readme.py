"""What the README gives people to type: its commands and its Python, and what a test needs to know to run them.

A command is one of the README's fenced `sh` blocks, without its comment, in one line. In three places a README says
more than a shell understands, and there alone a test may write something else for it: `…`, a choice (`[A]`, `A | B`),
a name in capitals (`HEAD`, `STORE`), and a patch's.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.readme_world import World

PROJECT: Final = Path(__file__).resolve().parents[1]
_COMMENT: Final = re.compile(r"(^|\s+)#\s.*")
_NOTATION: Final = re.compile(r"…|\[.+\]|[^|]+( \| [^|]+)+|[A-Z][A-Z0-9]*|0123456789abcdef_\d+_\d+")
_UNDERSTOOD_BY_A_SHELL: Final = frozenset("|;&<>$`()[]…")

#: Makes what a command names, at this path.
Make = Callable[["World", Path], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A command that is run as it stands, with what has to be there before and is there after.

    In `needs` and `leaves` a name is one of the folder that it runs in, or below s3://. `leaves` may be patterns.
    """

    needs: Mapping[str, Make] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)  # notation -> what a person writes for it
    more: str = ""  # words behind it; {s3} is the S3 server's URL
    leaves: tuple[str, ...] = ()
    says: str = ""  # among what it prints

    def __post_init__(self) -> None:
        if other := [one for one in self.values if not _NOTATION.fullmatch(one)]:
            raise ValueError(f"{other[0]} stands in the README as it is to be typed: it can't be another in the test")
        if not self.leaves and not self.says:
            raise ValueError("give what the command leaves or says: that it ends is not enough")


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """A command that needs a machine of its own. `tests`: those that run it, as path::name."""

    tests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A command for `make`. `recipe`: what it would run, among others."""

    recipe: tuple[str, ...]
    tests: tuple[str, ...] = ()


Entry = Run | Elsewhere | Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Snippet:
    """A block of Python. `names`: what it takes as given. `gives`: what it must have made, and of what that is true."""

    needs: Mapping[str, Make] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)  # text -> what this machine has instead
    names: Callable[[], Mapping[str, object]] = dict
    gives: Callable[[Mapping[str, Any]], bool]


def blocks(language: str) -> list[str]:
    """The text of every fenced block of this language, in order."""
    text = (PROJECT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command, once, in the README's order."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(filter(None, map(bare, lines))))


def bare(line: str) -> str:
    """A line without its comment, and with single spaces."""
    return " ".join(_COMMENT.sub("", line).split())


def typed(command: str, run: Run, endpoint_url: str) -> str:
    """What a person types for it. Raises ValueError where notation is left over, or a value has no place."""
    for notation, value in run.values.items():
        if notation not in command:
            raise ValueError(f"{command}: there is no {notation} to write {value} for")
        command = command.replace(notation, value)
    if left := sorted(_UNDERSTOOD_BY_A_SHELL & set(command)):
        raise ValueError(f"{command}: give a value for {' '.join(left)}")
    return f"{command} {run.more.format(s3=endpoint_url)}".strip()


def words(line: str, folder: Path) -> list[str]:
    """What a shell in this folder, of one who is at home there, makes of a line: quotes off, patterns filled in."""
    home = {**os.environ, "HOME": str(folder)}
    shell = ["sh", "-c", f"printf '%s\\0' {line}"]
    said = subprocess.run(shell, cwd=folder, env=home, stdout=subprocess.PIPE, check=True)
    return said.stdout.decode().split("\0")[:-1]
