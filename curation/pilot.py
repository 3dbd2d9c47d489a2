"""What a pilot run measured, in sums: all that a prediction of the whole run, or a simulation of it, starts from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Pilot:
    """The sums over a run of `rows` URLs of a list, in `chunks` chunks. Seconds are sums too: they overlap in time."""

    rows: int
    answered: int  # URLs whose body came, or so much of it that its header refused the rest
    scored: int  # pictures that went to a core to be decoded and scored
    kept: int
    patches: int
    wait_seconds: float  # of downloads, over all rows: what threads waited
    score_seconds: float  # of cores
    cut_seconds: float  # of cores: cutting patches and packing them
    store_seconds: float  # of writes to the store, by units
    bytes_down: int
    bytes_kept: int  # of originals, in their tars
    bytes_ledger: int
    bytes_shards: int
    chunks: int
    cut_held_seconds: float = 0.0  # of the cores that were there meanwhile, idle or not
    unit_seconds: float = 0.0  # of cores: what units themselves compute (downloads, tars, ledger), scoring aside

    def __post_init__(self) -> None:
        if self.rows < 1 or self.chunks < 1:
            raise ValueError(f"a pilot of {self.rows} rows in {self.chunks} chunks says nothing: it needs 1 or more")
        if wrong := [one.name for one in fields(self) if getattr(self, one.name) < 0]:
            raise ValueError(f"{wrong[0]} is {getattr(self, wrong[0])}: a pilot's sums are 0 or more")

    def to_json(self) -> str:
        """One JSON object, a field each."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> Pilot:
        """What `to_json` gave. Raises ValueError for anything else."""
        try:
            return Pilot(**json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"this is no pilot ({error}): `dynet-filter plan` writes one") from error
