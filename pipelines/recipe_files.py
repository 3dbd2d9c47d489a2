"""Recipes of training runs as plain values: read from a file, changed by `field=value`, written beside a run.

A recipe is a frozen dataclass whose fields are plain values or dataclasses again, its parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Recipe = TypeVar("Recipe")


def plain(recipe: Any) -> dict[str, Any]:
    """Plain JSON values."""
    return dict(json.loads(json.dumps(asdict(recipe))))


def flat(recipe: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """`part.field` -> plain value; `without` names parts and fields, as they are called here, to leave out."""
    left_out = frozenset(without)
    named = ((name, value) for name, value in _named(plain(recipe)) if name.partition(".")[0] not in left_out)
    return {name: value for name, value in named if name not in left_out}


def made(kind: type[Recipe], entry: Mapping[str, Any], what: str = "the recipe") -> Recipe:
    """`kind` from plain values, lists as tuples; what is left out is the default.

    Raises ValueError for a field that there is not, or a value of the wrong kind.
    """
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"{what} has no field {', '.join(unknown)}: it knows {', '.join(known)}")
    kinds = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if is_dataclass(kinds[name]):
            values[name] = made(kinds[name], value, name)
            continue
        values[name] = _taken(value, kinds[name])
        if not _fits(values[name], kinds[name]):
            raise ValueError(f"{what}: a value of the wrong kind ({name} is {value!r}, and not {known[name].type})")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{what}: a value of the wrong kind ({error})") from error


def read(word: str, named: Mapping[str, Callable[[], Recipe]], kind: type[Recipe]) -> Recipe:
    """The recipe of this name, or of a JSON file as `plain` gives it. Raises ValueError naming what is wrong."""
    if word in named:
        return named[word]()
    try:
        return made(kind, json.loads(Path(word).read_text()))
    except FileNotFoundError as error:
        raise ValueError(f"no recipe {word}: give {', '.join(named)} or a JSON file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{word} is no recipe ({error}): recipe.json of any run shows the form") from error


def changed(recipe: Recipe, words: Iterable[str]) -> Recipe:
    """The recipe with other values: `batch=64`, `settings.lr=2e-4`, `settings.depths=["S"]`.

    Values are JSON, or else words. Raises ValueError for a field that is none, or a value that can't be.
    """
    entry = plain(recipe)
    for word in words:
        path, mark, text = word.partition("=")
        if not mark:
            raise ValueError(f"'{word}': write FIELD=VALUE, such as settings.lr=2e-4")
        *parts, name = path.split(".")
        part = entry
        for one in parts:
            part = part.get(one, {}) if isinstance(part, dict) else {}
        if not isinstance(part, dict) or name not in part or isinstance(part[name], dict):
            raise ValueError(f"the recipe has no field {path}: it has {', '.join(name for name, _ in _named(entry))}")
        part[name] = _value(text)
    return made(type(recipe), entry)


def _taken(value: Any, kind: Any) -> Any:
    """A list as a tuple, and `1e6` as the whole number that it is."""
    if isinstance(value, list):
        return tuple(value)
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _named(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _named(value, f"{before}{name}.")
        else:
            yield before + name, value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a field that is annotated with `kind` can have it; a number must be finite."""
    parts = get_args(kind)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(kind) is tuple:
        of = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return isinstance(value, tuple) and len(value) == len(of) and all(map(_fits, value, of))
    if get_origin(kind) is Literal:
        return value in parts
    if parts:
        return any(_fits(value, part) for part in parts)
    return type(value) is kind
