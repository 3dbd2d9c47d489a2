"""Fit NIQE and BRISQUE to a domain of one's own: medical, aerial, whatever LIVE's photographs don't resemble.

From pristine pictures come the two files that pyiqa reads, in a folder to give as `--weights`:

* `niqe_modelparameters.mat`: mean and covariance of the 36 features of sharp 96 px blocks (Mittal, Soundararajan,
  Bovik 2013, "Making a completely blind image quality analyzer", section II-C). A block is sharp when its mean
  local deviation exceeds 0.75 of the picture's sharpest.
* `brisque_svm_weights.pth`: support vector regression of the 36 BRISQUE features (Mittal, Moorthy, Bovik 2012) on
  how badly a picture was blurred, made noisy or compressed, 0 for untouched to 95. LIVE asked people; here the
  amounts are known, so the scale orders pictures within the domain but is no opinion score: calibrate thresholds on
  it. Fitted to 12 photographs, 12 others score about 10 untouched and are off by 15 points on average.

Per picture at most 0.74 megapixels are measured, from the middle: about 2 s on one core. All of a 22 megapixel
picture would take 16 s and 10.7 GB for NIQE alone. The same pictures in the same order give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy.io
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from curation.degradations import degrade
from curation.scorers.protocol import FLAT_SHARE, textured_share
from curation.scorers.weights import SUMS

if TYPE_CHECKING:
    import torch
    from sklearn.svm import SVR

NIQE_FILE: Final = "niqe_modelparameters.mat"
BRISQUE_FILE: Final = "brisque_svm_weights.pth"
REPORT_FILE: Final = "fit.json"

FEATURES: Final = 36
BLOCK: Final = 96  # pixels, NIQE's
SHARP: Final = 0.75  # of the sharpest block of the picture
#: Under 37 blocks a covariance of 36 features is singular, and its smallest eigenvalues settle only later.
FEWEST_BLOCKS: Final = 2 * FEATURES
FEWEST_PICTURES: Final = 4
LONG_BLOCKS, SHORT_BLOCKS = 10, 8  # measured per picture: 960 x 768 pixels
WINDOW: Final = 5 * BLOCK  # BRISQUE learns from five windows of 480 x 480 pixels of them, and from the whole

#: pyiqa's constants for BRISQUE (LIVE's model): they can't be changed by a weight file.
GAMMA: Final = 0.05
OFFSET: Final = 153.591
#: C and epsilon, in points of the 0 to 100 scale. LIVE's C is 1024, but pyiqa adds in float32: see `train`.
PENALTY, TUBE = 128.0, 4.0

#: What BRISQUE learns: kind, amount (deviation in pixels, in grey levels, or JPEG's quality) and the score for it.
DEGRADATIONS: Final = (
    ("blur", 0.7, 20.0),
    ("blur", 1.2, 40.0),
    ("blur", 2.0, 65.0),
    ("blur", 4.0, 95.0),
    ("noise", 3.0, 20.0),
    ("noise", 7.0, 40.0),
    ("noise", 15.0, 65.0),
    ("noise", 35.0, 95.0),
    ("jpeg", 60.0, 20.0),
    ("jpeg", 30.0, 40.0),
    ("jpeg", 15.0, 65.0),
    ("jpeg", 6.0, 95.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a fit was made from; also the text of `fit.json`."""

    pictures: int  # used
    flat: int  # left out: nothing but near-constant areas
    sizes: tuple[tuple[int, int], ...]  # (width, height) of those used
    blocks: int  # sharp ones, behind NIQE's mean and covariance
    samples: int  # windows and degraded windows, behind BRISQUE's regression
    vectors: int  # support vectors of it
    settings: dict[str, object]
    versions: dict[str, str]
    sha256: dict[str, str]  # of the weight files


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    size: tuple[int, int]
    blocks: np.ndarray  # (n, 36) float64, NIQE features of the sharp blocks
    samples: np.ndarray  # (m, 36) float32, scaled BRISQUE features
    targets: np.ndarray  # (m,) float64, the score to learn for each


def fit(pictures: Sequence[Path | np.ndarray], out: Path) -> Fitted:
    """Fit NIQE and BRISQUE to pristine `pictures` (files, or (H, W, 3) uint8 RGB), and write a weights folder `out`.

    `out` must be new or empty. Raises ValueError, with nothing written, where it is not, where a file is no picture,
    or where the pictures are too few, too small (480 px a side) or too flat: 4 pictures with 72 sharp blocks of
    96 px are the least. Photographs have some 8 such blocks each, so a dozen just do; the paper used 125 pictures.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: give a new folder, so that no weights are overwritten")
    if len(pictures) < FEWEST_PICTURES:
        raise ValueError(f"{len(pictures)} pictures to fit: give at least {FEWEST_PICTURES}, better a dozen or more")
    measured = list(_measure_all(pictures))
    blocks, samples, targets = _pooled(measured, len(pictures))
    model = train(samples, targets)
    coefficients, vectors = exported(model, samples)
    files = {NIQE_FILE: niqe_bytes(blocks), BRISQUE_FILE: _brisque_bytes(coefficients, vectors)}
    fitted = Fitted(
        pictures=len(measured),
        flat=len(pictures) - len(measured),
        sizes=tuple(one.size for one in measured),
        blocks=len(blocks),
        samples=len(samples),
        vectors=len(vectors),
        settings=_settings(),
        versions={
            name: version(name) for name in ("pyiqa", "torch", "numpy", "scipy", "scikit-learn", "opencv-python")
        },
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    _write(out, files, fitted)
    return fitted


def _settings() -> dict[str, object]:
    return {
        "block": BLOCK,
        "sharp": SHARP,
        "measured_blocks": [LONG_BLOCKS, SHORT_BLOCKS],
        "window": WINDOW,
        "gamma": GAMMA,
        "offset": OFFSET,
        "penalty": PENALTY,
        "tube": TUBE,
        "degradations": DEGRADATIONS,
    }


def _measure_all(pictures: Sequence[Path | np.ndarray]) -> Iterator[_Measured]:
    """Measure picture by picture, so that one decoded picture is in memory at a time; flat ones are left out."""
    # disable=None: a bar on a terminal, silence elsewhere
    for number, picture in enumerate(tqdm(pictures, desc="fit", unit="picture", disable=None)):
        pixels, name = (_read(picture), str(picture)) if isinstance(picture, Path) else (picture, f"picture {number}")
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"{name} is {pixels.shape} {pixels.dtype}: give (H, W, 3) uint8 RGB")
        if min(pixels.shape[:2]) < WINDOW:
            raise ValueError(f"{name} has a side under {WINDOW} px: leave it out, or give a larger one")
        if textured_share(pixels) >= FLAT_SHARE:
            yield _measure(pixels, number)


def _read(path: Path) -> np.ndarray:
    """The user's own file, in any format that Pillow has: medical and aerial pictures are TIFF as often as JPEG."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be read as a picture ({error}): leave it out, or repair it") from error


def _measure(pixels: np.ndarray, number: int) -> _Measured:
    height, width = pixels.shape[:2]
    middle = _middle(pixels)
    features, sharpness = niqe_features(middle)
    sharp = sharpness > SHARP * sharpness.max()
    whole = np.isfinite(features).all(axis=-1)
    samples, targets = [np.empty((0, FEATURES), np.float32)], []
    for copy, target in _copies(middle, number):
        if textured_share(copy) >= FLAT_SHARE:
            samples.append(brisque_features(copy))
            targets.append(target)
    return _Measured(
        size=(width, height),
        blocks=features[sharp & whole],
        samples=np.concatenate(samples),
        targets=np.array(targets),
    )


def _copies(middle: np.ndarray, number: int) -> Iterator[tuple[np.ndarray, float]]:
    """What BRISQUE learns from a picture: itself, five windows of it, and each degradation of two of these.

    Which two goes round with the degradation and the number of the picture, which also seed the noise.
    """
    yield middle, 0.0
    windows = _windows(middle)
    for window in windows:
        yield window, 0.0
    for turn, (kind, amount, target) in enumerate(DEGRADATIONS, start=number):
        for place in (turn % len(windows), (turn + 2) % len(windows)):
            yield degrade(windows[place], kind, amount, seed=turn * len(windows) + place), target


def _windows(middle: np.ndarray) -> list[np.ndarray]:
    """Four windows of 480 x 480 pixels in the corners of (H, W, 3), and one in the middle."""
    low, right = middle.shape[0] - WINDOW, middle.shape[1] - WINDOW
    corners = ((0, 0), (0, right), (low, 0), (low, right), (low // 2, right // 2))
    return [middle[top : top + WINDOW, left : left + WINDOW] for top, left in corners]


def _middle(pixels: np.ndarray) -> np.ndarray:
    """The middle of a picture, whole blocks of it, at most 10 along the longer side and 8 along the shorter."""
    height, width = pixels.shape[:2]
    most_h, most_w = (LONG_BLOCKS, SHORT_BLOCKS) if height > width else (SHORT_BLOCKS, LONG_BLOCKS)
    crop_h, crop_w = min(height // BLOCK, most_h) * BLOCK, min(width // BLOCK, most_w) * BLOCK
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return pixels[top : top + crop_h, left : left + crop_w]


def niqe_features(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """pyiqa's NIQE features of every block, and the block's sharpness.

    (H, W, 3) uint8 RGB to (H // 96, W // 96, 36) and (H // 96, W // 96), both float64. Sharpness is the mean of
    the local deviation sigma(i, j) over the block (Mittal et al. 2013, II-C). A block without variance has NaN.
    """
    import torch
    from pyiqa.archs.func_util import diff_round, normalize_img_with_gauss
    from pyiqa.archs.niqe_arch import compute_feature
    from pyiqa.matlab_utils import blockproc, imresize

    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    luma = diff_round(_luma(pixels[: rows * BLOCK, : columns * BLOCK])).to(torch.float64)
    scales = []
    for scale, image in ((1, luma), (2, imresize(luma / 255.0, scale=0.5, antialiasing=True) * 255.0)):
        normalized = normalize_img_with_gauss(image, padding="replicate")
        scales.append(blockproc(normalized, [BLOCK // scale, BLOCK // scale], fun=compute_feature))
    # pyiqa numbers blocks column by column
    features = torch.cat(scales, -1).reshape(columns, rows, FEATURES).transpose(0, 1)
    blocks = _deviation(luma).reshape(rows, BLOCK, columns, BLOCK)
    return features.numpy(), blocks.mean(dim=(1, 3)).numpy()


def _luma(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 RGB to pyiqa's luma, (1, 1, H, W) float32 in [0, 255]."""
    import torch
    from pyiqa.utils.color_util import to_y_channel

    from curation.scorers.pyiqa_build import to_tensor

    return to_y_channel(to_tensor(pixels, torch.device("cpu")), 255.0)


def _deviation(luma: torch.Tensor) -> torch.Tensor:
    """The local deviation that the features are normalised by: in a Gaussian window of 7 px, its deviation 7/6."""
    from pyiqa.matlab_utils import fspecial, imfilter

    window = fspecial(7, 7 / 6, 1).to(luma)
    mean = imfilter(luma, window, padding="replicate")
    return (imfilter(luma**2, window, padding="replicate") - mean**2).abs().sqrt()


def brisque_features(pixels: np.ndarray) -> np.ndarray:
    """pyiqa's BRISQUE features, in its own scaling: (H, W, 3) uint8 RGB to (1, 36) float32, mostly in [-1, 1]."""
    import torch
    from pyiqa.archs.brisque_arch import natural_scene_statistics, scale_features
    from pyiqa.matlab_utils import imresize

    luma = _luma(pixels)
    half = imresize(luma, scale=0.5, antialiasing=True)
    return scale_features(torch.cat([natural_scene_statistics(image) for image in (luma, half)], dim=-1)).numpy()


def _pooled(measured: Sequence[_Measured], given: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All blocks (n, 36), samples (m, 36) and targets (m,). Raises ValueError where they are too few."""
    if not measured:
        raise ValueError(f"all {given} pictures are flat, nothing but near-constant areas: give textured ones")
    blocks = np.concatenate([one.blocks for one in measured])
    if len(measured) < FEWEST_PICTURES or len(blocks) < FEWEST_BLOCKS:
        raise ValueError(
            f"{len(measured)} textured pictures of {given} have {len(blocks)} sharp blocks, and a regular covariance "
            f"takes {FEWEST_BLOCKS} of {FEWEST_PICTURES} pictures or more: give more, or sharper, pictures"
        )
    samples = np.concatenate([one.samples for one in measured])
    targets = np.concatenate([one.targets for one in measured])
    usable = np.isfinite(samples).all(axis=1)
    return blocks, samples[usable], targets[usable]


def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """exp(-0.05 |l - r|^2), pyiqa's: (n, 36) and (m, 36) to (n, m) float64."""
    squares = (np.float64(left)[:, None] - np.float64(right)[None]) ** 2
    return np.exp(-GAMMA * squares.sum(axis=-1))


def train(samples: np.ndarray, targets: np.ndarray) -> SVR:
    """Support vector regression (m, 36) to (m,) whose offset is 153.591, the one written into pyiqa.

    A regression chooses its own offset b, through the constraint that its coefficients sum to nothing. One more
    sample, with kernel 0 to every other and to itself, takes that sum upon itself at no cost, so the rest are free
    of it; and as the machine predicts just b there, b is held at that sample's target, give or take the tube. The
    others' sum is negative (they pull 153.591 down to 0 .. 95), so it is held from below: target = b + tube.
    Far from every sample such a model says 153.591, that is: worse than anything it has seen.

    Samples are taken as float32, as pyiqa reads them. Larger coefficients fit better, and cost digits: they sum to
    some 2e4 in size, of which float32 leaves errors under 1e-3.
    """
    from sklearn.svm import SVR

    count = len(samples)
    gram = np.zeros((count + 1, count + 1))
    gram[1:, 1:] = kernel(samples, samples)
    weights = np.ones(count + 1)
    weights[0] = count  # may balance all the others at their limit
    model = SVR(kernel="precomputed", C=PENALTY, epsilon=TUBE, tol=1e-6)
    model.fit(gram, np.concatenate([[OFFSET + TUBE], targets]), sample_weight=weights)
    assert abs(model.intercept_[0] - OFFSET) < 1e-4, model.intercept_
    return model


def exported(model: SVR, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (n,) and support vectors (n, 36) of a trained model, float32 as pyiqa reads them."""
    real = model.support_ > 0  # number 0 is the one that holds the offset
    coefficients = model.dual_coef_[0][real].astype(np.float32)
    return coefficients, samples[model.support_[real] - 1].astype(np.float32)


def niqe_bytes(blocks: np.ndarray) -> bytes:
    """NIQE's weight file from the features (n, 36) of sharp blocks."""
    buffer: Any = io.BytesIO()  # savemat takes one, its type stubs don't say so
    model = {"mu_prisparam": blocks.mean(axis=0, keepdims=True), "cov_prisparam": np.cov(blocks, rowvar=False)}
    scipy.io.savemat(buffer, model)
    # the first 116 bytes are a free text, in which scipy writes the time of day
    return b"MATLAB 5.0 MAT-file, NIQE parameters".ljust(116) + buffer.getvalue()[116:]


def _brisque_bytes(coefficients: np.ndarray, vectors: np.ndarray) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save((torch.from_numpy(coefficients), torch.from_numpy(vectors)), buffer)
    return buffer.getvalue()


def _write(out: Path, files: dict[str, bytes], fitted: Fitted) -> None:
    """Write the folder beside `out`, then rename it: whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        for name, data in files.items():
            (part / name).write_bytes(data)
        (part / REPORT_FILE).write_text(json.dumps(asdict(fitted), indent=2) + "\n", encoding="utf-8")
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(fitted.sha256.items()))
        (part / SUMS).write_text(sums, encoding="utf-8")
        part.chmod(0o755)
        part.replace(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
