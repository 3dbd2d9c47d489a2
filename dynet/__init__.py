"""The network, what the released weights are called in it, how it is trained, and what it makes of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynet.restore import Restorer


def load(checkpoint: str | Path, *, device: str | None = None, precision: str = "f32") -> Restorer:
    """The network of a checkpoint (a run's, an exported or a released one), ready to restore pictures at any depth.

        restored = dynet.load("step-001000000.pt").restore(image, depth="S")

    `image`: (H, W, 3) RGB of any size from 1 x 1 on, uint8 in 0 to 255, uint16 in 0 to 65535, or float32 in [0, 1];
    `restored` has its shape, type and range. `depth`: "S", "L", "3,4,4,6" or four numbers of 1 to 32. `tile=512` takes
    less memory: overlapping tiles of so many pixels a side. See `dynet.restore.Restorer` for the rest.

    `device`: "cpu" or "cuda"; by default the GPU where there is one. `precision`: f32 or bf16.
    Raises ValueError for a file that holds none, and for a GPU that there is not.
    """
    # torch takes seconds, and who imports another module of this package may need none of it
    from dynet import weights
    from dynet.model import DyNet
    from dynet.restore import Restorer, device_of

    where = device_of(device)
    config, values = weights.read(Path(checkpoint))
    model = DyNet(config)
    model.load_state_dict(values)
    return Restorer(model, device=where, precision=precision)
