"""What things cost: inputs, every one of them. The defaults are examples to show the form; they are nobody's prices."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from pipelines.recipe_files import made

DATED: Final = "example figures of November 2026, round numbers and nobody's prices: put yours in (--prices FILE)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """A price table. Requests are priced by the thousand, as they are billed; LIST counts as PUT, HEAD as GET."""

    about: str = DATED  # whose prices, of when: it stands under every sum
    currency: str = "USD"
    cpu_worker_hour: float = 1.0  # a node without a GPU
    gpu_worker_hour: float = 4.0  # a node with GPUs, all of them
    head_hour: float = 0.5  # the head, from the first download to the end
    storage_gb_month: float = 0.025  # GB of 1e9 bytes
    put_1000: float = 0.005
    get_1000: float = 0.0005
    ingress_gb: float = 0.0  # of downloads from the web
    egress_gb: float = 0.1  # of what is published out of the provider's network
    months: float = 1.0  # for which originals, ledger and shards are kept

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the price {one.name} is {value}: give 0 or more")


def read_prices(path: Path) -> Prices:
    """The table of a JSON file; what it leaves out is the example's. Raises ValueError naming what is wrong with it."""
    try:
        entry = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no price table ({error}): give a JSON object such as {_form()}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{path} is no price table: give a JSON object such as {_form()}")
    missing = [] if "about" in entry else ["about"]
    if missing:
        raise ValueError(f'{path} does not say whose prices these are: add "about", such as "our contract, May 2027"')
    return made(Prices, entry, "the price table")


def _form() -> str:
    return '{"about": "our contract, May 2027", "cpu_worker_hour": 0.8}'
