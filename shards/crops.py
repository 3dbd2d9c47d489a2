"""stand-in until merged"""

from __future__ import annotations

import cv2
import numpy as np

from shards.patches import Box


class DecodeError(ValueError):
    """x"""


def decode_crop(data: bytes, suffix: str, box: Box) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DecodeError("no picture")
    return image[box.top : box.top + box.size, box.left : box.left + box.size]
