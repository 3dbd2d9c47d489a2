"""Whose a store is: the recipe that its ledger was made by, so that two recipes never mix in one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pipelines.recipes import FilterRecipe
from shards.store import Store

CLAIM: Final = "recipe.json"


def claim(store: Store, recipe: FilterRecipe, weights: Mapping[str, str]) -> None:
    """Takes the store for this recipe and these weights, or agrees with who has it.

    Raises ValueError naming what differs where it belongs to another recipe, and where `store` holds
    something else altogether.
    """
    wanted = {"recipe": recipe.to_dict(), "weights": dict(weights)}
    if not store.exists(CLAIM):
        store.write(CLAIM, json.dumps(wanted, indent=1).encode())
        return
    known = _read(store)
    # scores by metrics that no longer vote do no harm
    known["weights"] = {metric: digest for metric, digest in known["weights"].items() if metric in weights}
    if known == wanted:
        return
    differences = "; ".join(_differences(known, wanted))
    raise ValueError(
        f"{store.root} belongs to another recipe ({differences}): `dynet-filter judge` changes thresholds, "
        "anything else needs another --out"
    )


def reclaim(store: Store, recipe: FilterRecipe, more: Mapping[str, str]) -> None:
    """Gives the store new thresholds; the weights stay those that scored it, and `more` are added to them.

    Raises ValueError where a metric that has scores here would now be scored by other weights.
    """
    scored_by = weights(store)
    for metric, digest in more.items():
        if scored_by.get(metric, digest) != digest:
            raise ValueError(
                f"{store.root} was scored with other weights of {metric} (SHA-256 {scored_by[metric][:16]}...): "
                "give those, or another --out"
            )
    wanted = {"recipe": recipe.to_dict(), "weights": {**scored_by, **more}}
    store.write(CLAIM, json.dumps(wanted, indent=1).encode())


def recipe(store: Store) -> FilterRecipe:
    """The recipe the store was made by. Raises ValueError where there is none."""
    if not store.exists(CLAIM):
        raise ValueError(f"{store.root} has no {CLAIM}: it is no store that `dynet-filter` wrote")
    return FilterRecipe.from_dict(_read(store)["recipe"])


def weights(store: Store) -> dict[str, str]:
    """Metric -> SHA-256 of the weights that scored the store."""
    return dict(_read(store)["weights"])


def _read(store: Store) -> dict[str, Any]:
    try:
        entry = dict(json.loads(store.read(CLAIM)))
        return {"recipe": dict(entry["recipe"]), "weights": dict(entry["weights"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{store.root}/{CLAIM} can't be read ({error}): it is no store of this program") from error


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for name in sorted({*known, *wanted}):
        left, right = known.get(name), wanted.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += _differences(left, right, f"{path}{name}.")
        elif left != right:
            found.append(f"{path}{name} is {_shown(left)} there and {_shown(right)} here")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        bounds = [f"{one['metric']} {one['bound']:g}" for one in value if isinstance(one, Mapping)]
        return ", ".join(bounds) or "empty"
    return str(value)
