"""Pictures and weights made by code, and a network that answers nothing."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.io
import torch

from curation.scorers.mscn import luma
from curation.scorers.pyiqa_build import without_backbone_weights

if TYPE_CHECKING:
    from pyiqa.archs.nima_arch import NIMA


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with the 1/f spectrum of photographs, (H, W, 3) uint8."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    grey = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((height, width))) / frequency, s=(height, width))
    grey = 128 + 45 * (grey - grey.mean()) / grey.std()
    return np.clip(grey, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def of_luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to the grey picture of its luma: the same to a metric, and rounded alike everywhere."""
    return np.repeat(luma(pixels)[..., None], 3, axis=2)


def pin(folder: Path) -> None:
    """Write a SHA256SUMS of everything in a folder."""
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir()))
    (folder / "SHA256SUMS").write_text("".join(list(lines)))


def random_nima(backbone: str, classes: int = 10) -> NIMA:
    """pyiqa's NIMA with random weights, without the network that it would fetch ImageNet's from."""
    from pyiqa.archs.nima_arch import NIMA

    torch.manual_seed(0)
    with without_backbone_weights():
        return NIMA(backbone, num_classes=classes, pretrained=False)


def write_weights(folder: Path) -> Path:
    """NIQE and BRISQUE weights of the right form, that mean nothing."""
    folder.mkdir()
    scipy.io.savemat(
        folder / "niqe_modelparameters.mat", {"mu_prisparam": np.zeros((1, 36)), "cov_prisparam": np.eye(36)}
    )
    torch.save((torch.tensor([-50.0]), torch.zeros(1, 36)), folder / "brisque_svm_weights.pth")
    return folder


@pytest.fixture
def weights_dir(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights")


NIMA_FILE = "NIMA_VGG16_ava-dc4e8265.pth"


def write_nima(folder: Path) -> Path:
    """Random weights in the form that pyiqa publishes NIMA's in."""
    folder.mkdir()
    torch.save({"params": random_nima("vgg16").state_dict()}, folder / NIMA_FILE)
    return folder


@pytest.fixture
def nima_dir(tmp_path: Path) -> Path:
    return write_nima(tmp_path / "nima")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything outside goes through a proxy that refuses connections; caches are empty ones."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use for good
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
