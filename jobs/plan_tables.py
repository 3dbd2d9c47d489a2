"""A plan on paper: tables of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from curation.forecast import Interval
from curation.outcomes import STEPS
from jobs import terminal
from pipelines import capacity, promise
from pipelines.capacity import HOUR, Cluster, Stage
from pipelines.plan import Plan, total_cost
from pipelines.promise import Kept

_WIDTH: Final = 100
_BETWEEN: Final = "95 % between"
_SHARES: Final = frozenset({promise.ANSWERED})
_TIMES: Final = frozenset({promise.FILTERING, promise.CUTTING})


def text(made: Plan) -> str:
    """All of a plan, as it is printed."""
    return "\n\n".join(_parts(made))


def _parts(made: Plan) -> Iterator[str]:
    drawn = made.drawn
    pilot = f"pilot: {drawn.count:,} of them at random, in {made.pilot.chunks:,} chunks"
    yield f"list: {drawn.rows:,} rows, {drawn.fresh:,} different URLs; {pilot}"
    yield quantities(made.quantities)
    yield _yields(made)
    yield f"hours on {_cluster(made.cluster)}:\n{_stages(made.stages)}\nbottleneck: {made.bottleneck}"
    yield _money(made)
    yield _advice(made)
    yield _sweep(made)
    yield "\n".join(textwrap.fill(f"- {note}", _WIDTH, subsequent_indent="  ") for note in made.notes)


def quantities(promised: Mapping[str, Interval]) -> str:
    """What is predicted for the whole list."""
    rows = [(name, *_three(name, promised[name])) for name in promise.ORDER if name in promised]
    return terminal.table(("the whole list", "predicted", *_head()), rows)


def compared(found: Sequence[Kept]) -> str:
    """Plan against actual."""
    rows = [(one.name, *_three(one.name, one.promised), _said(one.name, one.actual), _where(one)) for one in found]
    return terminal.table(("plan against actual", "predicted", *_head(), "actual", ""), rows)


def _head() -> tuple[str, str]:
    return (_BETWEEN, "and")


def _three(name: str, value: Interval) -> tuple[str, str, str]:
    return _said(name, value.mid), _said(name, value.low), _said(name, value.high)


def _where(one: Kept) -> str:
    if one.promised.holds(one.actual):
        return "inside"
    return "above" if one.actual > one.promised.high else "below"


def _said(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    if name in _TIMES:
        return terminal.duration(value)
    return terminal.scaled(value) + ("B" if name.startswith("bytes") else "")


def _yields(made: Plan) -> str:
    """A line a metric: what would be kept where its bound alone is moved."""
    head = ("kept, where the bound of", *(_step(step) for step in STEPS))
    by_metric: dict[str, list[str]] = {}
    for one in made.yields:
        open_end = "+" if one.unknown else ""
        by_metric.setdefault(one.metric, []).append(f"{one.bound:.3g}: {100 * one.share.mid:.2f}{open_end} %")
    table = terminal.table(head, [(metric, *cells) for metric, cells in by_metric.items()])
    now = next((one.share for one in made.yields if one.step == 0.0), None)
    if now is None:
        return table
    between = f"as the recipe has it {100 * now.mid:.2f} %, 95 % between {100 * now.low:.2f} and {100 * now.high:.2f} %"
    means = "+: at least; some pictures were refused before all of their scores were computed"
    return f"{table}\n{between}" + (f"\n{means}" if any(one.unknown for one in made.yields) else "")


def _step(step: float) -> str:
    if step == 0:
        return "the recipe's"
    return f"{100 * abs(step):.0f} % {'stricter' if step > 0 else 'looser'}"


def _stages(found: Sequence[Stage]) -> str:
    rows = [
        (("  " if stage.overlaps else "") + stage.name, *map(_hours, _ends(stage.hours)), stage.limit.value)
        for stage in found
    ]
    whole = ("all, one after the other", *map(_hours, _ends(capacity.total(tuple(found)))), "")
    return terminal.table(("stage", "predicted", *_head(), "held up by"), [*rows, whole])


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.mid, value.low, value.high


def _hours(value: float) -> str:
    return terminal.duration(value * HOUR)


def _cluster(one: Cluster) -> str:
    gpus = f", {one.gpus:g} GPUs" if one.gpus else ""
    nodes = f"{one.nodes:,} node{'s' if one.nodes > 1 else ''}"
    return f"{nodes} of {one.cores} cores{gpus}, {one.gbits:g} Gbit/s, {one.threads} threads a chunk"


def _money(made: Plan) -> str:
    asked, prices = made.requests, made.prices
    said = " ".join(
        f"{terminal.scaled(one.mid).strip()} {name}"
        for name, one in (("PUT,", asked.put), ("GET and HEAD,", asked.get), ("LIST", asked.list))
    )
    rows = [(name, *map(_price, _ends(one))) for name, one in made.costs.items()]
    rows.append(("all", *map(_price, _ends(total_cost(made.costs)))))
    table = terminal.table((f"cost in {prices.currency}", "predicted", *_head()), rows)
    about = textwrap.fill(f"prices: {prices.about}", _WIDTH)
    return f"requests to S3: {said}\n\n{table}\n{about}"


def _price(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def _advice(made: Plan) -> str:
    hours, cost = capacity.total(made.advised), total_cost(made.advised_costs)
    next_one = capacity.bottleneck(made.advised)
    why = textwrap.fill(made.advice.why, _WIDTH)
    return (
        f"{why}\n"
        f"so: {_cluster(made.advice.cluster)}\n"
        f"then {_hours(hours.mid)} ({_hours(hours.low)} to {_hours(hours.high)}), "
        f"{_price(cost.mid)} {made.prices.currency}; longest: {next_one.name}, by {next_one.limit.value}"
    )


def _sweep(made: Plan) -> str:
    rows = [(f"{nodes:,}", *map(_hours, _ends(hours)), _price(cost.mid)) for nodes, (hours, cost) in made.sweep.items()]
    return terminal.table(("nodes of that kind", "all stages", *_head(), made.prices.currency), rows)
