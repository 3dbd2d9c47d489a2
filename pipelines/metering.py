"""What a running job counts, for Prometheus: here each number is defined, and nowhere else.

The driver alone counts. Where it has a Ray, the numbers stand on the metrics port of its node, among Ray's own and with
`ray_` before their names, so that Ray's dashboard and its Grafana have them; `endpoint` serves the same without Ray.
Rows and bytes are counted as their unit is committed, a unit that was killed on the way not at all: in a first run they
add up to the ledger. No histogram: of what Ray's endpoint is given it keeps the bucket and not the sum (5.5 for a 5),
and the log has each unit's own seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import ray
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PlainCounter
from prometheus_client import Gauge as PlainGauge
from prometheus_client.exposition import start_http_server
from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge as RayGauge

from curation.records import Reason
from pipelines.unit_tally import Done

if TYPE_CHECKING:  # it takes torch, and the filter's driver has no use for that
    from dynet.progress import Progress

PREFIX: Final = "million_ird_"
REGISTRY: Final = CollectorRegistry()


class _Count:
    """Grows, from the beginning of this process."""

    def __init__(self, name: str, told: str, label: str) -> None:
        self._label = label
        self._plain = PlainCounter(PREFIX + name, told, (label,), registry=REGISTRY)
        self._on_ray = RayCounter(PREFIX + name, told, (label,))

    def add(self, value: float, which: str) -> None:
        if value > 0:  # Ray takes no other
            self._plain.labels(which).inc(value)
            if ray.is_initialized():
                self._on_ray.inc(value, {self._label: which})


class _Level:
    """Is what it was last set to. `label`: none for a number by itself."""

    def __init__(self, name: str, told: str, label: str = "") -> None:
        self._label = label
        labels = (label,) if label else ()
        self._plain = PlainGauge(PREFIX + name, told, labels, registry=REGISTRY)
        self._on_ray = RayGauge(PREFIX + name, told, labels)

    def set(self, value: float, which: str = "") -> None:
        (self._plain.labels(which) if self._label else self._plain).set(value)
        if ray.is_initialized():
            self._on_ray.set(value, {self._label: which} if self._label else {})


ROWS: Final = _Count("rows", "Rows of committed units, by what became of them", "reason")
PICTURES: Final = _Count("pictures", "Pictures of committed units that came to this stage: score, keep", "stage")
SECONDS: Final = _Count("seconds", "Seconds of committed units: unit, fetch (waits), score, gpu, store, cpu", "stage")
BYTES: Final = _Count("bytes", "Bytes of committed units: read, kept", "what")
UNITS: Final = _Level("units", "Units now: waiting, flying", "state")
BATCHES: Final = _Level("batches", "Batches of pictures being scored or waiting for it")

STEP: Final = _Level("training_step", "Steps of the optimizer so far")
SAMPLES: Final = _Level("training_samples_per_second", "Of all ranks, over the last steps")
WAITS: Final = _Level("training_data_wait_ratio", "Share of the last steps' time without a batch")
LOSS: Final = _Level("training_loss", "Mean over the last steps", "depth")
SKIPPED_STEPS: Final = _Level("training_skipped_steps", "Steps that changed nothing")
SKIPPED_SAMPLES: Final = _Level("training_skipped_samples", "Samples that others stand in for: rank 0, this start")


def landed(done: Done) -> None:
    """A unit was committed."""
    for reason, rows in done.reasons.items():
        ROWS.add(rows, reason)
    for stage, seconds in done.seconds.items():
        SECONDS.add(seconds, stage)
    PICTURES.add(done.scored, "score")
    PICTURES.add(done.reasons[Reason.KEPT.value], "keep")
    BYTES.add(done.bytes_read, "read")
    BYTES.add(done.bytes_kept, "kept")


def queues(waiting: int, flying: int, batches: int) -> None:
    """How much there is to do now: units not begun, units in work, their batches not scored."""
    UNITS.set(waiting, "waiting")
    UNITS.set(flying, "flying")
    BATCHES.set(batches)


def trained(now: Progress) -> None:
    """A training run got on."""
    STEP.set(now.step)
    SAMPLES.set(now.per_second)
    WAITS.set(now.waits)
    SKIPPED_STEPS.set(now.skipped)
    SKIPPED_SAMPLES.set(now.missing)
    for depth, loss in now.losses.items():
        LOSS.set(loss, depth)


@contextmanager
def endpoint(port: int) -> Iterator[None]:
    """All of this at http://HOST:`port`/metrics, for as long as it is open.

    Raises ValueError for a port that can't be had.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"--metrics-port {port} is no port: give a number from 1 to 65535")
    try:
        server, thread = start_http_server(port, registry=REGISTRY)
    except OSError as error:
        raise ValueError(f"--metrics-port {port} can't be had ({error.strerror}): give another") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
