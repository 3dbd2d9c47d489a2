"""pyiqa's metrics, one model of each per worker, one picture at a time.

One picture at a time costs nothing on a CPU and makes a score independent of its neighbours, of the batch size and
of the order; pictures differ in size anyway. Measured on one core, in seconds: NIQE 0.74 and BRISQUE 0.15 per
megapixel, NIMA 0.3 for a picture of one megapixel and 0.9 for one of 22.

Memory is pyiqa's: NIQE holds the table that it fits a distribution against once for each 96 px block, in float64,
10.7 GB for a picture of 22 megapixels. It is given back after each picture.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from curation.scorers.protocol import Measure, Scorer, Unmeasurable
from curation.scorers.pyiqa_build import build, check_metrics, to_tensor
from curation.scorers.weights import WeightFile, pinned

if TYPE_CHECKING:
    import torch

#: Features live in blocks of 96 px at full and 48 px at half size (Mittal et al. 2013): one block at least.
_SMALLEST_SIDE: Final = {"niqe": 96, "niqe_matlab": 96, "pi": 96}


class PyiqaScorer(Scorer):
    """Scores by name; `weights` is what `resolve` found: metric to files, in the order of the scores.

    `device` is torch's name of one, "cpu" or "cuda".
    """

    def __init__(self, weights: Mapping[str, tuple[WeightFile, ...]], device: str = "cpu") -> None:
        check_metrics(tuple(weights))
        self._weights = dict(weights)
        self._device = device
        self._models: dict[str, torch.nn.Module] = {}

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self._weights)

    def setup(self) -> None:
        """Build every model, and keep torch to one thread: the workers already fill the cores.

        Raises ValueError where there is no such device, or a weight file is missing or not the one of `resolve`.
        """
        import torch

        device = torch.device(self._device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("no CUDA device here: run the scorer on the CPU, or on a machine with a GPU")
        torch.set_num_threads(1)
        # NIQE on a picture of one block: the score is pyiqa's all the same
        warnings.filterwarnings("ignore", message=r"cov\(\)", category=UserWarning)
        self._models = {
            metric: build(metric, device=device, find=pinned(files)) for metric, files in self._weights.items()
        }

    def measure(self, pixels: np.ndarray, sure: Sequence[str]) -> Measure:
        """What measures (H, W, 3) uint8 RGB, each metric by itself."""
        assert self._models, "setup() comes first"

        def by(metric: str) -> float:
            smallest = _SMALLEST_SIDE.get(metric, 1)
            if min(pixels.shape[:2]) < smallest:
                raise Unmeasurable(f"a side is under {smallest} px")
            return self._measured(self._models[metric], pixels)

        return by

    def _measured(self, model: torch.nn.Module, pixels: np.ndarray) -> float:
        """One score. Raises Unmeasurable for what this picture makes of the metric."""
        import torch

        device = torch.device(self._device)
        try:
            with _fixed_seed():
                value = float(model(to_tensor(pixels, device)).item())
        except torch.linalg.LinAlgError as error:
            raise Unmeasurable("no two blocks that it can describe") from error
        # what pyiqa raises for pictures without variance, or smaller than its filters; that the metric works at
        # all was shown in setup()
        except (RuntimeError, AssertionError, LookupError, ValueError, ArithmeticError) as error:
            if machines_fault(error):
                raise
            raise Unmeasurable((str(error).splitlines() or [type(error).__name__])[0][:120]) from error
        return value


def machines_fault(error: Exception) -> bool:
    """Whether torch failed for want of memory or on its device: another try may do better, so it is no verdict."""
    import torch

    broken = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)  # from torch 2.8 on
    return isinstance(error, (torch.OutOfMemoryError, broken)) or "DefaultCPUAllocator" in str(error)


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """Some metrics crop at random, each by its own generator: the same crops for a picture, whatever came before."""
    import torch

    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
