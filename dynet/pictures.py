"""Pictures of a run: what the network makes of held-out crops, side by side, and the loss against the step.

    grid({"clean": clean, "degraded": degraded, "S": small, "L": large})    # a row a sample, a column an entry
    curves({"S": (steps, losses), "L": (steps, losses)})

Both are (H, W, 3) uint8 RGB, as a board takes them; `png` turns them into a file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image, ImageDraw, ImageFont

LEAST_SIDE: Final = 128  # pixels of a picture in the grid: smaller ones are enlarged by whole numbers
_GAP: Final = 4  # pixels between pictures
_LABEL: Final = 24  # pixels above a column
_TEXT: Final = 15  # pixels
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

_SIZE: Final = (9.0, 5.0)  # inches
_DPI: Final = 100
_POINTS: Final = 1000  # of a line: more than there are pixels
_LINES: Final = 6  # depths that get a line of their own
_SMOOTH: Final = 20  # a bold line is the mean over this part of all its points
_WIDE: Final = 0.7  # decades, from which on 1, 2 and 5 of each are marks enough
_LONG: Final = 10_000  # steps, from which on they are written in thousands

Line = tuple[np.ndarray, np.ndarray]


def grid(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A row a sample and a column a name, which is written above. Each column: (n, H, W, 3) uint8.

    Raises ValueError for columns that don't fit together.
    """
    shapes = {pixels.shape for pixels in columns.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or not min(shape) or shape[3] != 3:
        raise ValueError("a grid needs columns of one size: give (n, H, W, 3) for each, of at least one sample")
    if any(pixels.dtype != np.uint8 for pixels in columns.values()):
        raise ValueError("a grid is made of bytes: give uint8")
    times = -(-LEAST_SIDE // min(shape[1:3]))
    font = ImageFont.load_default(_TEXT)
    height, width = shape[1] * times, shape[2] * times
    pitch = max(width, *(int(font.getlength(name)) + _GAP for name in columns)) + _GAP
    sheet = Image.new("RGB", (len(columns) * pitch + _GAP, _LABEL + shape[0] * (height + _GAP)), _WHITE)
    pen = ImageDraw.Draw(sheet)
    for column, (name, pixels) in enumerate(columns.items()):
        left = _GAP + column * pitch
        pen.text((left, _LABEL // 2), name, _BLACK, font, anchor="lm")
        for row, one in enumerate(pixels.repeat(times, axis=1).repeat(times, axis=2)):
            sheet.paste(Image.fromarray(one), (left, _LABEL + row * (height + _GAP)))
    return np.asarray(sheet)


def curves(losses: Mapping[str, Line]) -> np.ndarray:
    """The loss of each depth against the step, by a logarithmic scale: faint as it is, bold its running mean.

    A depth has its steps, (n,) ascending, and their losses, (n,); those that come last in the mapping share a line
    where there are many. Raises ValueError where there is no loss at all.
    """
    finite = {depth: _finite(line) for depth, line in losses.items()}
    lines = _few({depth: line for depth, line in finite.items() if len(line[0])})
    if not lines:
        raise ValueError("no step was taken: there is no loss to draw")
    figure = Figure(_SIZE, _DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (depth, line) in enumerate(lines.items()):
        _draw(axes, depth, line, f"C{number}")
    _dress(axes, steps=max(int(steps[-1]) for steps, _ in lines.values()), decades=_decades(lines))
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a file."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def _finite(line: Line) -> Line:
    steps, values = (np.asarray(one) for one in line)
    drawable = np.isfinite(values) & (values > 0)
    return steps[drawable], values[drawable]


def _few(lines: Mapping[str, Line]) -> dict[str, Line]:
    """At most `_LINES`: the last of them, where there are more, has all others."""
    if len(lines) <= _LINES:
        return dict(lines)
    names = list(lines)
    rest = [lines[name] for name in names[_LINES - 1 :]]
    steps, values = (np.concatenate(parts) for parts in zip(*rest, strict=True))
    order = np.argsort(steps, kind="stable")
    return {**{name: lines[name] for name in names[: _LINES - 1]}, "others": (steps[order], values[order])}


def _draw(axes: Axes, depth: str, line: Line, colour: str) -> None:
    steps, values = (_thinned(one) for one in line)
    window = max(1, len(values) // _SMOOTH)
    mean = np.full(window, 1 / window)
    smooth, at = np.convolve(values, mean, "valid"), np.convolve(steps, mean, "valid")
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    marker = "o" if len(at) == 1 else ""
    axes.plot(at, smooth, color=colour, linewidth=2, marker=marker, label=f"{depth}   {smooth[-1]:.4f}")


def _thinned(values: np.ndarray) -> np.ndarray:
    """Means of at most `_POINTS` stretches."""
    return np.array([part.mean() for part in np.array_split(values, min(len(values), _POINTS))])


def _decades(lines: Mapping[str, Line]) -> float:
    """What the losses span."""
    every = np.concatenate([values for _, values in lines.values()])
    return float(np.log10(every.max() / every.min()))


def _dress(axes: Axes, steps: int, decades: float) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if decades > _WIDE else MaxNLocator(5))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    if steps >= _LONG:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step else "0"))
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(title="depth, loss at the end", loc="upper right")
