"""Picture files as the released code sees them: RGB bytes, neither turned by EXIF nor changed by a colour profile."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFile

ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
#: What Pillow raises for bytes that are no whole picture.
_UNREADABLE: Final = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError),
    *(struct.error, Image.DecompressionBombError),
)


def is_named(path: Path) -> bool:
    """Whether it is a file that has a picture's name."""
    return path.suffix.lower() in ENDINGS and path.is_file()


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises ValueError for a file that is no whole picture of 8 bits."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other packages switch it on, for the whole process
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"{image.mode} has other levels than 0 to 255: save it with 8 bits")
            return np.array(image.convert("RGB"))
    except _UNREADABLE as error:
        raise ValueError(f"{said(path)} can't be read: {' '.join(str(error).split())}") from error


def said(path: Path) -> str:
    """A stranger's name in a sentence."""
    return f"{path.parent}/{ascii(path.name)[1:-1] if not path.name.isprintable() else path.name}"
