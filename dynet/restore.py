"""Pictures in, restored pictures out: the network behind an interface of arrays.

    restorer = dynet.load("step-001000000.pt")
    restored = restorer.restore(picture, depth="S")     # (H, W, 3) uint8, uint16 or float32, and the same out

A picture that is too large for the memory is restored in overlapping tiles (`dynet.tiles`). Tiles differ from the
whole, for attention's maps and the prompts' weights are sums over all pixels that the network sees at once. Measured
on 12 pictures of CBSD68 with noise of sigma 25, a network of width 8 trained for 160 steps, depth S, in levels of 255:
tiles of 256 differ by 2.0 on average (32 at most), of 128 by 3.4, of 64 by 4.1; where tiles meet by no more than in
their middle (1.9 and 2.2, 3.2 and 3.9, 3.9 and 4.2). To the clean picture tiles were even nearer there (PSNR 20.51,
20.74 and 20.90 dB, whole 20.43): it was trained on crops of 64. Width 48 with random weights: 3.0 and 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import psutil
import torch

from dynet import tiles
from dynet.model import MULTIPLE, DyNet
from dynet.train import PRECISIONS

Watch = Callable[[int, int], None]

_TOP: Final = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # the highest level
#: Bytes of memory that a pixel takes at its peak for each channel of the network's width, at any depth: 130 to 161 were
#: measured in float32 on a CPU (widths 16 and 48, 256² to 512 x 768 pixels), 70 in bfloat16.
_BYTES: Final = 170
_ARRAYS: Final = 40  # bytes a pixel of the picture itself: as it came, as float32, and what becomes of it
_SHARE: Final = 0.8  # of the memory that is available: others want some, and an allocator leaves gaps


def _unwatched(_done: int, _total: int) -> None:
    """Nobody looks on."""


class Restorer:
    """A network ready to be used, on one device. `precision`: f32 or bf16."""

    def __init__(self, model: DyNet, *, device: torch.device, precision: str = "f32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is '{precision}': give {', '.join(PRECISIONS)}")
        self.model = model.to(device).eval()
        self.device = device
        self._precision = PRECISIONS[precision]

    def restore(
        self,
        image: np.ndarray,
        depth: str | Sequence[int] = "L",
        tile: int | None = None,
        watch: Watch = _unwatched,
    ) -> np.ndarray:
        """(H, W, 3) RGB of any size, restored: uint8 and uint16 with all their levels, float32 in [0, 1]; the same out.

        `depth`: "S", "L" or four numbers. `tile`: see `floats`. Raises ValueError for other arrays and depths.
        """
        _check(image)
        top = _TOP.get(image.dtype)
        given = image.astype(np.float32) / np.float32(top) if top else image
        found = self.floats(given, depth, tile, watch).clip(0, 1)
        return np.rint(found * np.float32(top)).astype(image.dtype) if top else found

    def floats(
        self,
        image: np.ndarray,
        depth: str | Sequence[int] = "L",
        tile: int | None = None,
        watch: Watch = _unwatched,
    ) -> np.ndarray:
        """(H, W, 3) float32 in [0, 1] to what the network gives, not clipped: what metrics are measured on.

        `tile`: pixels a side, a multiple of 8, of tiles that overlap by a quarter; None: the whole picture at once.
        `watch` is told, after each tile, how many of how many are done.
        """
        if image.dtype != np.float32:
            raise ValueError(f"{image.dtype} pixels: give float32 in [0, 1]")
        _check(image)
        height, width, _ = image.shape
        if tile is None:
            return self._whole(image, depth)
        parts = tiles.tiles(height, width, tile)
        if len(parts) == 1:
            return self._whole(image, depth)
        blended = np.zeros_like(image)
        for done, part in enumerate(parts, 1):
            blended[part.where] += part.weights * self._whole(image[part.where], depth)
            watch(done, len(parts))
        return blended

    def fitting_tile(self, height: int, width: int) -> int | None:
        """What `tile` a picture of this size needs to fit into the memory that is free now; None: it fits whole.

        Raises ValueError where not even the smallest tile fits.
        """
        return fitting_tile((height, width), self.model.config.width, _available(self.device))

    @contextmanager
    def running(self) -> Iterator[None]:
        """In here the network computes in this precision, and without gradients."""
        lower = self._precision != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self._precision, enabled=lower):
            yield

    def _whole(self, image: np.ndarray, depth: str | Sequence[int]) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)[None]
        with self.running():
            restored = self.model(x, depth)
        return restored[0].permute(1, 2, 0).float().cpu().numpy()


def device_of(word: str | None) -> torch.device:
    """The device that "cpu" or "cuda" means; by default the GPU where there is one.

    Raises ValueError for a GPU that there is not.
    """
    if word == "cuda" and not torch.cuda.is_available():
        raise ValueError("no GPU here: give --device cpu")
    return torch.device(word or ("cuda" if torch.cuda.is_available() else "cpu"))


def bytes_needed(size: tuple[int, int], width: int) -> int:
    """Of memory, at most, for height and width `size` seen at once by a network of that width, in float32."""
    height, across = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return _BYTES * width * height * across


def fitting_tile(size: tuple[int, int], width: int, available: int) -> int | None:
    """The largest tile for a picture of height and width `size` that `available` bytes allow; None: it fits whole.

    Raises ValueError where not even the smallest fits.
    """
    free = int(_SHARE * available) - _ARRAYS * size[0] * size[1]
    if bytes_needed(size, width) <= free:
        return None
    side = int((max(free, 0) / (_BYTES * width)) ** 0.5) // MULTIPLE * MULTIPLE
    if side < tiles.SMALLEST:
        raise ValueError(
            f"{available / 1e6:.0f} MB of memory are free, too few for a picture of {size[1]}x{size[0]} pixels: "
            "end other programs, or cut the picture"
        )
    return side


def _available(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, and free to it
    return torch.cuda.mem_get_info(device)[0] + kept


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"shape {image.shape}: give an RGB picture, (H, W, 3)")
    if image.dtype not in _TOP and image.dtype != np.float32:
        raise ValueError(f"{image.dtype} pixels: give uint8, uint16, or float32 in [0, 1]")
