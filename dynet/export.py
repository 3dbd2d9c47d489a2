"""The network as files: a program of torch.export or ONNX for each depth, or its weights, which serve every depth.

The programs need nothing of this project. A depth is how often blocks are applied, so each has a program of its own;
its weights are in the file once, however often they are applied. What is written is loaded back and has to give what
the network gives before it has its name.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dynet import upstream, weights
from dynet.model import MULTIPLE, Depth, DyNet, depth_name

Size = tuple[int, int]
#: (1, 3, H, W) to the same.
Run = Callable[[Tensor], Tensor]

PROGRAMS: Final = {"torch": ".pt2", "onnx": ".onnx"}
FILES: Final = {"weights": "dynet.pt", "released": "dynet-released.ckpt"}
#: What a program may differ by, of values about [0, 1]: other kernels add in another order.
TOLERANCE: Final = 1e-4
#: Pictures that a program for any size is compared on; the first is what it is recorded with, the last what is timed.
_SIZES: Final = ((64, 72), (16, 40), (128, 96))
_REPEATS: Final = 5
_ANY_SIZE: Final = 1 << 40  # bytes
#: Of a recorded operation: where in the code it came from, paths of this machine included.
_TRACES: Final = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written, loaded back and compared."""

    path: Path
    #: Of the file.
    bytes: int
    #: The largest from what the network gives, of values about [0, 1].
    difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Program(Exported):
    """One of a depth; seconds a picture of height and width `size` takes, the median of five."""

    depth: Depth
    size: Size
    network_seconds: float
    program_seconds: float


def export_program(model: DyNet, depth: Depth, form: str, folder: Path, size: Size | None = None) -> Program:
    """Writes `dynet-<depth>` with the suffix of `form` (torch or onnx) into `folder`.

    (1, 3, H, W) float32 in [0, 1] to the same, not clamped. `size`: height and width, any, of a program for that alone;
    None: one for every H and W of at least 16 that 8 divides. Raises ValueError where what was written doesn't give
    what the network gives, and for ONNX where the packages that write and run it are not installed.
    """
    check_form(form)
    model = model.cpu().eval()
    sizes = _SIZES if size is None else (size,)
    path = folder / f"dynet-{depth_name(depth).replace(',', '-')}{PROGRAMS[form]}"
    program = _recorded(model, depth, sizes[0], fixed=size is not None)
    with _whole(path) as passing:
        {"torch": _save_torch, "onnx": _save_onnx}[form](program, passing)
        run = {"torch": load_torch, "onnx": load_onnx}[form](passing)
        network: Run = _AtDepth(model, depth)
        difference = _difference(path, network, run, sizes)
        seconds = _seconds((network, run), sizes[-1])
    return Program(
        path=path,
        bytes=path.stat().st_size,
        difference=difference,
        depth=depth,
        size=sizes[-1],
        network_seconds=seconds[0],
        program_seconds=seconds[1],
    )


def export_weights(model: DyNet, form: str, folder: Path) -> Exported:
    """Writes what `dynet.load` reads into `folder`, for every depth; `form`: weights, or released for that code.

    Raises ValueError for a network that the released code doesn't have.
    """
    ours = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    content = weights.written(model.config, ours) if form == "weights" else upstream.written(model.cpu())
    path = folder / FILES[form]
    with _whole(path) as passing:
        torch.save(content, passing)
        config, found = weights.read(passing)
        if config != model.config or not all(torch.equal(value, ours[name]) for name, value in found.items()):
            raise ValueError(f"{path} doesn't hold the weights it was given: it was not kept")
    return Exported(path=path, bytes=path.stat().st_size, difference=0.0)


def check_form(form: str) -> None:
    """Raises ValueError for ONNX where the packages that write and run it are not installed."""
    if form != "onnx":
        return
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}: pip install 'million-ird[export]'") from error


def load_torch(path: Path) -> Run:
    """A `.pt2` file, to be called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module()

    def run(picture: Tensor) -> Tensor:
        with torch.inference_mode():
            return program(picture)

    return run


def load_onnx(path: Path) -> Run:
    """An `.onnx` file in ONNX Runtime on the CPU, on as many threads as torch has, to be called."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda picture: torch.from_numpy(session.run(None, {name: picture.numpy()})[0])


class _AtDepth(nn.Module):
    """The network with its depth given."""

    def __init__(self, model: DyNet, depth: Depth) -> None:
        super().__init__()
        self.model = model
        self.depth = depth

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture, self.depth)


def _recorded(model: DyNet, depth: Depth, size: Size, *, fixed: bool) -> ExportedProgram:
    """What is done with a picture of height and width `size`; with others too, where not `fixed`."""
    free = {2: MULTIPLE * Dim("height", min=2), 3: MULTIPLE * Dim("width", min=2)}
    with torch.no_grad():
        program = torch.export.export(
            _AtDepth(model, depth), (torch.rand(1, 3, *size),), dynamic_shapes=None if fixed else {"picture": free}
        )
    for node in program.graph.nodes:
        for trace in _TRACES:
            node.meta.pop(trace, None)
    return program


def _save_torch(program: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that share their storage: the file is compared anyway
        torch.export.save(program, path)


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    """All that is made of weights alone is computed here, and what is equal kept once: a block applied three times
    would else have three padded copies. What is left to ONNX Runtime 1.31 to fold at width 48, it can't load."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    with _quiet():
        made: Any = torch.onnx.export(
            program, dynamo=True, external_data=False, output_names=["restored"], verbose=False
        )
        optimizer.fold_constants(made.model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    common.RemoveUnusedNodesPass()(made.model)
    common.DeduplicateInitializersPass(size_limit=_ANY_SIZE)(made.model)
    common.ClearMetadataAndDocStringPass()(made.model)  # paths of this machine among it
    made.save(str(path), external_data=False)


def _difference(path: Path, network: Run, run: Run, sizes: Sequence[Size]) -> float:
    """The largest. Raises ValueError where it is too large."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for size in sizes:
        picture = torch.rand(1, 3, *size, generator=generator)
        with torch.inference_mode():
            largest = max(largest, (network(picture) - run(picture)).abs().max().item())
    if not largest < TOLERANCE:
        raise ValueError(f"{path} differs from the network by {largest:.2g}: it was not kept")
    return largest


def _seconds(runs: Sequence[Run], size: Size) -> list[float]:
    """The median of each, in turns: what else the machine does meets all of them."""
    picture = torch.rand(1, 3, *size)
    seconds: list[list[float]] = [[] for _ in runs]
    with torch.inference_mode():
        for _ in range(_REPEATS):
            for run, taken in zip(runs, seconds, strict=True):
                started = time.perf_counter()
                run(picture)
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Gives a passing name, whose file has the name `path` at the end; it is taken away where that is not reached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".part-{path.name}")
    try:
        yield passing
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of every step, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
