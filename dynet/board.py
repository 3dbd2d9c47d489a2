"""What TensorBoard shows of a run: loss, PSNR and SSIM per depth, pace, memory, and a picture now and then."""

from __future__ import annotations

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from dynet.progress import Progress


class Board:
    """Event files in `folder`. What an earlier run wrote there behind `step` is hidden."""

    def __init__(self, folder: str, step: int) -> None:
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    def scalars(self, now: Progress) -> None:
        """The numbers of a progress line."""
        for depth, loss in now.losses.items():
            self._writer.add_scalar(f"loss/{depth}", loss, now.step)
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
