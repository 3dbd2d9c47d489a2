"""Whose a store is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import claims, recipes
from shards.store import LocalStore

RECIPE = recipes.FilterRecipe(thresholds=recipes.thresholds({"niqe": 5.0, "brisque": 40.0}))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.parametrize("body", [b"{}", b'{"recipe": {}}', b'{"recipe": 1, "weights": {}}', b"[]", b"no JSON"])
def test_a_claim_that_is_none_is_one_sentence(store: LocalStore, body: bytes) -> None:
    store.write(claims.CLAIM, body)
    with pytest.raises(ValueError, match="it is no store of this program"):
        claims.recipe(store)


def test_scores_by_metrics_that_no_longer_vote_do_no_harm(store: LocalStore) -> None:
    claims.claim(store, RECIPE, {"niqe": "1", "brisque": "2"})
    fewer = recipes.FilterRecipe(thresholds=recipes.thresholds({"niqe": 5.0}))
    claims.reclaim(store, fewer, {})
    claims.claim(store, fewer, {"niqe": "1"})
    assert claims.weights(store) == {"niqe": "1", "brisque": "2"}
    with pytest.raises(ValueError, match="belongs to another recipe"):
        claims.claim(store, RECIPE, {"niqe": "1", "brisque": "2"})
    with pytest.raises(ValueError, match=r"weights\.niqe is 1 there and 9 here"):
        claims.claim(store, fewer, {"niqe": "9"})
