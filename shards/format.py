"""What a shard holds: two members a sample, `<key>_<top>_<left>.jpg|png` and `.json`.

The JSON is flat, so that a metric is an entry like any other (`json["niqe"]`) for `webdataset`, `ray.data` or
`jq`. Its bytes are a function of its content: sorted names, no spaces, NaN as null.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, Final

SCHEMA_VERSION: Final = 1
DATA_SUFFIXES: Final = ("jpg", "png")
JSON_SUFFIX: Final = "json"

_NAME: Final = re.compile(r"([0-9a-f]{16})_([0-9]{5})_([0-9]{5})\.(jpg|png|json)")
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_HIGHEST: Final = 99_999  # of five digits
_VERSION: Final = "schema_version"


class FormatError(ValueError):
    """A member's name or JSON is none of this format; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A member's name, taken apart."""

    key: str
    top: int
    left: int
    suffix: str  # "jpg", "png" or "json"

    @property
    def sample(self) -> str:
        """The name that the members of a sample share."""
        return sample_name(self.key, self.top, self.left)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What the JSON says of a patch. Lengths are pixels of the upright picture."""

    key: str  # first 16 hex digits of SHA-256 of the URL
    url: str
    source: str
    width: int
    height: int
    top: int
    left: int
    size: int
    flat_fraction: float
    codec: str  # "jpeg-dct" or "png"
    scores: dict[str, float] = field(default_factory=dict)  # of the whole picture; NaN: no value


_FIXED: Final = {f.name: f.type for f in fields(Description) if f.name != "scores"}
_TYPES: Final = {"str": (str,), "int": (int,), "float": (int, float)}


def sample_name(key: str, top: int, left: int) -> str:
    """`<key>_<top>_<left>`. Raises ValueError for a key that is not 16 hex digits, or a place beyond 99,999."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key: 16 hex digits, lower case")
    if not (0 <= top <= _HIGHEST and 0 <= left <= _HIGHEST):
        raise ValueError(f"a patch at ({top}, {left}) has no name: both lie between 0 and {_HIGHEST}")
    return f"{key}_{top:05d}_{left:05d}"


def parse_name(name: str) -> Name:
    """The parts of a member's name. Raises FormatError for any other: paths, odd characters, other suffixes."""
    match = _NAME.fullmatch(name)
    if not match:
        raise FormatError(f"{name[:200]!r} is no member of a shard: <16 hex digits>_00000_00000.jpg|png|json")
    key, top, left, suffix = match.groups()
    return Name(key=key, top=int(top), left=int(left), suffix=suffix)


def to_json(description: Description) -> bytes:
    """The JSON member. Raises ValueError for a metric that is named like one of the fixed entries."""
    taken = description.scores.keys() & {*_FIXED, _VERSION}
    if taken:
        raise ValueError(f"no metric can be called '{min(taken)}': the sample's JSON has that entry already")
    entries: dict[str, Any] = {name: getattr(description, name) for name in _FIXED}
    scores = {name: float(score) if math.isfinite(score) else None for name, score in description.scores.items()}
    entries = {**entries, **scores, _VERSION: SCHEMA_VERSION}
    return json.dumps(entries, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def from_json(data: bytes) -> Description:
    """The description in a JSON member. Raises FormatError where an entry is missing, odd or of a newer schema."""
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"a sample's JSON can't be read: {error}") from error
    if not isinstance(entries, dict):
        raise FormatError("a sample's JSON is no object")
    version = entries.pop(_VERSION, None)
    if version != SCHEMA_VERSION:
        raise FormatError(f"a sample's JSON has schema version {version!r}, this reads {SCHEMA_VERSION}")
    fixed = {name: _entry(entries, name, kind) for name, kind in _FIXED.items()}
    return Description(**fixed, scores={name: _score(name, value) for name, value in entries.items()})


def _entry(entries: dict[str, Any], name: str, kind: Any) -> Any:
    value = entries.pop(name, None)
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
        raise FormatError(f"a sample's JSON has {value!r:.80} as '{name}', not a {kind}")
    return value


def _score(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormatError(f"a sample's JSON has {value!r:.80} as '{name}', not a number")
    return float(value)
