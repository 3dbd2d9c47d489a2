"""Names and JSON go there and back, and what a stranger made of them is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.format import Description, FormatError, from_json, parse_name, sample_name, to_json

KEY = "0123456789abcdef"
PATCH = Description(
    key=KEY,
    url="https://example.org/a?b=ü",
    source="laion",
    width=2048,
    height=1365,
    top=512,
    left=1024,
    size=512,
    flat_fraction=0.25,
    codec="jpeg-dct",
    scores={"niqe": 3.5, "brisque": 12.25},
)


def entries(**changes: object) -> bytes:
    return json.dumps({**json.loads(to_json(PATCH)), **changes}).encode()


@given(
    key=st.text("0123456789abcdef", min_size=16, max_size=16),
    top=st.integers(0, 99_999),
    left=st.integers(0, 99_999),
    suffix=st.sampled_from(["jpg", "png", "json"]),
)
def test_a_name_goes_there_and_back(key: str, top: int, left: int, suffix: str) -> None:
    name = parse_name(f"{sample_name(key, top, left)}.{suffix}")
    assert (name.key, name.top, name.left, name.suffix) == (key, top, left, suffix)
    assert name.sample == sample_name(key, top, left)


@pytest.mark.parametrize(
    "name",
    [
        f"../{KEY}_00000_00000.jpg",
        f"/{KEY}_00000_00000.jpg",
        f"a/{KEY}_00000_00000.jpg",
        f"{KEY}_00000_00000.jpg\n",
        f"{KEY}_00000_00000.jpg\0",
        f"{KEY}_00000_00000.exe",
        f"{KEY}_00000_00000.jpg.png",
        f"{KEY}_0_0.jpg",
        f"{KEY}_000000_00000.jpg",
        f"{KEY}_٠٠٠٠٠_00000.jpg",
        f"{KEY.upper()}_00000_00000.jpg",
        "",
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        parse_name(name)


@pytest.mark.parametrize(("key", "top", "left"), [("x", 0, 0), (KEY + "0", 0, 0), (KEY, -1, 0), (KEY, 0, 100_000)])
def test_a_patch_that_has_no_name_is_refused(key: str, top: int, left: int) -> None:
    with pytest.raises(ValueError, match=r"key|name"):
        sample_name(key, top, left)


def test_the_json_is_flat_sorted_and_versioned() -> None:
    document = json.loads(to_json(PATCH))
    assert list(document) == sorted(document)
    assert (document["niqe"], document["schema_version"], document["url"]) == (3.5, 1, PATCH.url)


def test_the_json_goes_there_and_back() -> None:
    assert from_json(to_json(PATCH)) == PATCH


def test_the_bytes_do_not_depend_on_the_order_of_the_metrics() -> None:
    assert to_json(replace(PATCH, scores={"brisque": 12.25, "niqe": 3.5})) == to_json(PATCH)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_without_a_value_is_null(score: float) -> None:
    data = to_json(replace(PATCH, scores={"nima": score}))
    assert json.loads(data)["nima"] is None
    assert math.isnan(from_json(data).scores["nima"])


@pytest.mark.parametrize("name", ["width", "url", "schema_version"])
def test_a_metric_cannot_hide_an_entry(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        to_json(replace(PATCH, scores={name: 1.0}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        entries(schema_version=2),
        entries(width="2048"),
        entries(width=True),
        entries(url=None),
        entries(niqe="good"),
        to_json(PATCH).replace(b'"top"', b'"Top"'),
    ],
)
def test_json_of_a_stranger_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        from_json(data)
