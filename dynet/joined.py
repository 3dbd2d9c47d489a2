"""Two streams as one: each global batch has a part from either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dynet.loop import Batches
from shards.stream import Batch


class Joined:
    """Batches of `endless`, epoch after epoch, beside those of `leading`, whose epochs are this one's."""

    def __init__(self, endless: Batches, leading: Batches) -> None:
        self._endless, self._leading = endless, leading
        self._running: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """What is left of the leading stream's epoch."""
        if self._running is None:  # and not anew each epoch: what its workers have ready would be lost
            self._running = _for_ever(self._endless)
        for led in self._leading:
            yield _beside(next(self._running), led)

    def state_dict(self) -> dict[str, Any]:
        """Where both are."""
        return {"endless": self._endless.state_dict(), "leading": self._leading.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there, before the first batch. Raises ValueError for the state of other streams."""
        if set(state) != {"endless", "leading"}:
            raise ValueError("the run was begun with other data: give the same, or another --out to begin anew")
        self._endless.load_state_dict(state["endless"])
        self._leading.load_state_dict(state["leading"])

    def close(self) -> None:
        """Closes both."""
        self._endless.close()
        self._leading.close()


def _for_ever(batches: Batches) -> Iterator[Batch]:
    while True:
        yield from batches


def _beside(one: Batch, other: Batch) -> Batch:
    assert one.derived is not None and other.derived is not None, "both streams degrade their crops"
    return Batch(
        pixels=torch.cat([one.pixels, other.pixels]),
        derived=torch.cat([one.derived, other.derived]),
        samples=one.samples + other.samples,
        epochs=one.epochs + other.epochs,
        skipped=one.skipped + other.skipped,
        parts=(len(one.samples), len(other.samples)),
    )
