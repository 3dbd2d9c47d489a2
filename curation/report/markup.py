"""HTML that is safe unless somebody says otherwise: a plain `str` is escaped where it enters, `Html` is not.

Links and captions come from strangers. Beside HTML's own characters, control characters and those that turn the
direction of writing are shown as `\\u202e`, so that what is read is what is there.
"""

from __future__ import annotations

import html
import unicodedata
from typing import Final

LONGEST: Final = 400  # characters of a stranger's text that are shown
_TURNING: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_VOID: Final = frozenset({"img", "meta", "link", "br"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float) -> Html:
    """`<name attributes>children</name>`. An attribute `class_` is written `class`, `aria_label` as `aria-label`."""
    said = "".join(f' {_attribute(key)}="{escaped(_number(value))}"' for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """The children one after the other, each escaped unless it is `Html`."""
    return Html("".join(child if isinstance(child, Html) else escaped(child) for child in children))


def escaped(text: str) -> Html:
    """`text` as HTML shows it, in content and in attributes alike."""
    return Html(html.escape("".join(map(_visible, text))))


def strangers(text: str, longest: int = LONGEST) -> Html:
    """A stranger's text: escaped, cut at `longest` characters, and apart from its surroundings' direction."""
    cut = text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
    return element("bdi", cut)


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if hidden or unicodedata.bidirectional(character) in _TURNING:
        return f"\\u{ord(character):04x}"
    return character


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
