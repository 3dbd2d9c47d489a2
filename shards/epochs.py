"""Which version of the set each epoch has, and the epoch's order by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from shards import held_out, tombstones
from shards.manifest import Manifest, ManifestError, Shard, at_version, read_again, read_manifest
from shards.order import Order
from shards.sequence import Ask, Plan, Position, ask, epoch_of
from shards.store import Store

STATE_VERSION: Final = 1
_ADDED_LATER: Final = {"held_out": [], "part": "train"}  # fields of a plan that older states of version 1 lack


class Epochs:
    """The epochs of a run over one set.

    Raises ManifestError where there is no set, ValueError where it has no samples or the plan can't be.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store, self._plan = store, plan
        self._manifest = read_manifest(store)
        self._admitted: dict[int, int] = {}  # from this epoch on -> version of the set
        self._orders: dict[int, Order] = {}
        self._in_both: dict[int, np.ndarray] = {}  # version -> what of the held-out shards is left out
        if plan.crop > self.patch:
            raise ValueError(f"crop is {plan.crop}: the patches have {self.patch} pixels a side")
        if not self._manifest.samples:
            raise ValueError(f"{store.root} has no samples left")
        held_out.check(plan.held_out, len(self._manifest.shards), store.root)

    @property
    def patch(self) -> int:
        """Pixels a side of the set's patches."""
        size = self._manifest.recipe.get("size")
        if not isinstance(size, int) or not 0 < size < 1 << 16:
            raise ManifestError(
                f"the manifest in {self._store.root} doesn't say how large its patches are (recipe: size)"
            )
        return size

    def decided(self, epoch: int) -> bool:
        """Whether it was decided for this very epoch which version it has."""
        return epoch in self._admitted

    @property
    def begun(self) -> bool:
        """Whether it was decided for any."""
        return bool(self._admitted)

    def newest(self) -> int:
        """The set's newest version now. Raises OtherSet, ManifestError."""
        self._manifest = read_again(self._store, self._manifest)
        return self._manifest.version

    def admit(self, epoch: int, version: int) -> None:
        """From `epoch` on, this version. Raises ManifestError where the set has none of that number."""
        at_version(self._manifest, version)
        self._admitted[epoch] = version
        self._orders = {known: order for known, order in self._orders.items() if known < epoch}

    def order(self, epoch: int) -> Order:
        """The epoch's order. Raises ManifestError where nothing is left of the set."""
        if epoch not in self._orders:
            self._orders = {known: one for known, one in self._orders.items() if known >= epoch - 1}
            self._orders[epoch] = self._made(epoch)
        return self._orders[epoch]

    def _made(self, epoch: int) -> Order:
        version = self._admitted[max(begin for begin in self._admitted if begin <= epoch)]
        there = at_version(self._manifest, version)
        removed = tombstones.read(self._store, there)
        if not tombstones.fit(there, removed):
            raise ManifestError(f"the tombstones in {self._store.root} don't fit its manifest: run dynet-shard fsck")
        slots = np.array([shard.slots for shard in there.shards], np.int64)
        held = np.isin(np.arange(len(slots)), self._plan.held_out)
        mine, gone = ~held, removed[:, :2]
        if self._plan.part == "valid":
            mine, gone = held, np.concatenate([gone, self._shared(there)])
        order = Order(
            slots=np.where(mine, slots, 0),
            removed=np.unique(gone[mine[gone[:, 0]]], axis=0),
            seed=self._plan.seed,
            epoch=epoch,
            window=self._plan.window,
        )
        if not order.length:
            raise ManifestError(f"{self._store.root} has no samples left{self._where} in its version {version}")
        return order

    @property
    def _where(self) -> str:
        if not self._plan.held_out:
            return ""
        return " to train on" if self._plan.part == "train" else " of pictures that are held out as a whole"

    def _shared(self, there: Manifest) -> np.ndarray:
        """(n, 2) rows of shard and slot: `held_out.in_both`, read once a version."""
        if there.version not in self._in_both:
            held = [number for number in self._plan.held_out if number < len(there.shards)]
            self._in_both = {there.version: held_out.in_both(self._store, there, held)}
        return self._in_both[there.version]

    def epoch_of(self, position: Position) -> int:
        """The epoch to which the global batch counts that begins there."""
        return epoch_of(position, self._plan.batch, self.order)

    def asks(self, position: Position) -> Iterator[Ask]:
        """The global batches from there to the end of the epoch to which the first of them counts."""
        epoch = self.epoch_of(position)
        while self.epoch_of(position) == epoch:
            one = ask(position, self._plan.batch, self.order)
            yield one
            position = one.after

    def window_at(self, position: Position) -> int:
        """The number, in its epoch, of the window that is read there."""
        return self.order(position.epoch).windows(position.taken, position.taken + 1)[0]

    def shards_at(self, epoch: int, window: int) -> list[Shard]:
        """The shards that this window and the next one are taken from.

        The next epoch's first window follows the last; where that epoch gets another version it may have others.
        """
        order = self.order(epoch)
        following = order.shards_of(window + 1) or self.order(epoch + 1).shards_of(0)
        numbers = dict.fromkeys((*order.shards_of(window), *following))
        return [self._manifest.shards[number] for number in numbers]

    def state_dict(self) -> dict[str, Any]:
        """Set, plan and versions: plain values."""
        return {
            "state_version": STATE_VERSION,
            "set": self._manifest.set,
            "plan": self._plan.to_dict(),
            "admitted": [list(pair) for pair in sorted(self._admitted.items())],
        }

    def load_state_dict(self, state: Mapping[str, Any], position: Position) -> None:
        """The versions of an earlier run, which was at `position`.

        Raises ValueError for the state of another set or plan, or of no run; OtherSet, and ManifestError where the set
        has lost a version.
        """
        if state.get("state_version") != STATE_VERSION:
            raise ValueError(f"the stream's state has version {state.get('state_version')}, this reads {STATE_VERSION}")
        if state["set"] != self._manifest.set:
            raise ValueError(f"the state is of set {state['set']}, {self._store.root} is {self._manifest.set}")
        ours, theirs = self._plan.to_dict(), {**_ADDED_LATER, **state["plan"]}
        if other := [name for name in ours if theirs.get(name) != ours[name]]:
            told = ", ".join(f"{name}={theirs.get(name)}" for name in other)
            raise ValueError(f"the state's batches were made with {told}: give the same, or begin anew")
        admitted = {int(epoch): int(version) for epoch, version in state["admitted"]}
        if (admitted or position != Position()) and min(admitted, default=position.epoch + 1) > position.epoch:
            raise ValueError(
                f"the state is at sample {position.taken} of epoch {position.epoch} and says no version of the set for "
                "it: give a state as state_dict() made it, or begin anew"
            )
        self.newest()
        for version in admitted.values():
            at_version(self._manifest, version)
        self._admitted, self._orders = admitted, {}
