"""What TensorBoard shows of a run: loss, PSNR and SSIM per depth, pace, memory, and a picture now and then."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from dynet.model import depth_name, depth_of
from dynet.progress import Progress


class Board:
    """Event files in `folder`. What an earlier run wrote there behind `step` is hidden.

    Each of `depths` has a loss of its own; the many that lie between them share one line, their mean.
    """

    def __init__(self, folder: str, step: int, depths: Iterable[str]) -> None:
        self._depths = {depth_name(depth_of(word)) for word in depths}
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    def scalars(self, now: Progress) -> None:
        """The numbers of a progress line."""
        for depth, loss in now.losses.items():
            if depth in self._depths:
                self._writer.add_scalar(f"loss/{depth}", loss, now.step)
        if between := [loss for depth, loss in now.losses.items() if depth not in self._depths]:
            self._writer.add_scalar("loss/between", sum(between) / len(between), now.step)
        for depth, quality in now.qualities.items():
            self._writer.add_scalar(f"psnr/{depth}", quality.psnr, now.step)
            self._writer.add_scalar(f"ssim/{depth}", quality.ssim, now.step)
        self._writer.add_scalar("gradient/norm", now.norm, now.step)
        self._writer.add_scalar("pace/samples_per_second", now.per_second, now.step)
        self._writer.add_scalar("pace/data_wait_share", now.waits, now.step)
        self._writer.add_scalar("pace/memory_bytes", now.memory, now.step)
        self._writer.add_scalar("steps/skipped", now.skipped, now.step)

    def picture(self, pixels: np.ndarray, step: int) -> None:
        """(H, W, 3) uint8."""
        self._writer.add_image("held out", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes what is not yet on the disk."""
        self._writer.close()
