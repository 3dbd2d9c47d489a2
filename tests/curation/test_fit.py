"""A fitted folder is read by pyiqa as it is meant, ranks clean before degraded, and bad input writes nothing."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from curation.degradations import degrade
from curation.fit import (
    DEGRADATIONS,
    FEWEST_BLOCKS,
    OFFSET,
    Fitted,
    brisque_features,
    exported,
    fit,
    kernel,
    niqe_features,
    train,
)
from curation.scorers import PyiqaScorer, resolve


def photograph(height: int, width: int, seed: int) -> np.ndarray:
    """1/f noise in three correlated channels, and outlines of ellipses: (H, W, 3) uint8."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(generator.standard_normal((3, height, width))) / frequency
    layers = np.fft.irfft2(spectrum, s=(height, width))
    layers = (layers - layers.mean(axis=(1, 2), keepdims=True)) / layers.std(axis=(1, 2), keepdims=True)
    colours = np.stack([layers[0], 0.8 * layers[0] + 0.2 * layers[1], 0.8 * layers[0] + 0.2 * layers[2]], axis=-1)
    pixels = np.clip(128 + 40 * colours, 0, 255).astype(np.uint8)
    for _ in range(40):
        centre = generator.integers(0, [width, height]).tolist()
        axes, colour = generator.integers(10, 120, 2).tolist(), generator.integers(0, 255, 3).tolist()
        cv2.ellipse(pixels, centre, axes, generator.uniform(0, 180), 0, 360, colour, 3, cv2.LINE_AA)
    return pixels


def scorer_of(folder: Path, *metrics: str) -> PyiqaScorer:
    scorer = PyiqaScorer(resolve(metrics, folder))
    scorer.setup()
    return scorer


def test_features_are_those_that_pyiqas_niqe_sees(tmp_path: Path) -> None:
    pixels = photograph(300, 420, 1)
    features, sharpness = niqe_features(pixels)
    assert features.shape == (3, 4, 36) and sharpness.shape == (3, 4)
    generator = np.random.default_rng(0)
    mean, root = generator.random(36), generator.random((36, 36))
    model = {"mu_prisparam": mean[None], "cov_prisparam": root @ root.T}
    scipy.io.savemat(tmp_path / "niqe_modelparameters.mat", model)
    rows = features.reshape(-1, 36)
    middle = (model["cov_prisparam"] + np.cov(rows, rowvar=False)) / 2
    difference = mean - rows.mean(axis=0)
    expected = np.sqrt(difference @ np.linalg.pinv(middle) @ difference)  # Mittal et al. 2013, eq. 10
    assert scorer_of(tmp_path, "niqe").score(pixels).scores["niqe"] == pytest.approx(expected, rel=1e-6)


def test_sharpness_belongs_to_its_block() -> None:
    pixels = np.full((288, 384, 3), 128, np.uint8)
    pixels[96:192, 288:] = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    features, sharpness = niqe_features(pixels)
    assert np.unravel_index(sharpness.argmax(), sharpness.shape) == (1, 3)
    assert np.isfinite(features[1, 3]).all() and np.isnan(features[0, 0]).any()


def test_pyiqa_reads_the_machine_that_scikit_learn_trained(tmp_path: Path) -> None:
    samples, targets = [], []
    for seed in range(3):
        clean = photograph(256, 256, seed)
        samples.append(brisque_features(clean))
        targets.append(0.0)
        for kind, amount, target in DEGRADATIONS:
            samples.append(brisque_features(degrade(clean, kind, amount, seed=seed)))
            targets.append(target)
    features = np.concatenate(samples)
    model = train(features, np.array(targets))
    coefficients, vectors = exported(model, features)
    torch.save((torch.from_numpy(coefficients), torch.from_numpy(vectors)), tmp_path / "brisque_svm_weights.pth")
    scorer = scorer_of(tmp_path, "brisque")
    for pixels in (photograph(200, 260, 9), degrade(photograph(256, 256, 0), "noise", 15.0, seed=7)):
        gram = kernel(brisque_features(pixels), features)
        wanted = model.predict(np.concatenate([np.zeros((1, 1)), gram], axis=1))[0]
        assert scorer.score(pixels).scores["brisque"] == pytest.approx(wanted, abs=1e-3)
    far = model.predict(np.zeros((1, 1 + len(features))))[0]
    assert far == pytest.approx(OFFSET, abs=1e-4)
    rms = np.sqrt(np.mean((model.predict(np.pad(kernel(features, features), ((0, 0), (1, 0)))) - targets) ** 2))
    assert rms < 15  # it learned something: targets deviate by 31


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    folder = tmp_path_factory.mktemp("fit") / "weights"
    pictures: list[Path | np.ndarray] = [photograph(600, 820, seed) for seed in range(5)]
    for number, suffix in ((0, "png"), (1, "bmp")):
        path = folder.parent / f"{number}.{suffix}"
        Image.fromarray(pictures[number]).save(path)
        pictures[number] = path
    return folder, fit([*pictures, np.full((600, 600, 3), 9, np.uint8)], folder)


@pytest.mark.slow
def test_the_fitted_folder_tells_what_it_was_made_from(fitted: tuple[Path, Fitted]) -> None:
    folder, told = fitted
    names = {"niqe_modelparameters.mat", "brisque_svm_weights.pth", "SHA256SUMS", "fit.json"}
    assert {file.name for file in folder.iterdir()} == names
    assert list(folder.parent.glob(".*")) == []
    report = json.loads((folder / "fit.json").read_text())
    assert (report["pictures"], report["flat"], report["sizes"]) == (5, 1, [[820, 600]] * 5)
    assert report["blocks"] >= FEWEST_BLOCKS and report["samples"] == 5 * 30 and "pyiqa" in report["versions"]
    for name, digest in told.sha256.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    covariance = scipy.io.loadmat(folder / "niqe_modelparameters.mat")["cov_prisparam"]
    assert np.linalg.matrix_rank(covariance) == 36
    weights = resolve(["niqe", "brisque"], folder)
    assert {file.origin for files in weights.values() for file in files} == {"fitted by dynet-filter fit"}


@pytest.mark.slow
def test_a_fitted_model_ranks_clean_before_blurred_noisy_and_crushed(fitted: tuple[Path, Fitted]) -> None:
    scorer = scorer_of(fitted[0], "niqe", "brisque")
    for seed in (50, 51):
        clean = photograph(640, 640, seed)
        best = scorer.score(clean).scores
        for kind, amount in (("blur", 2.0), ("noise", 35.0), ("jpeg", 10.0)):
            worse = scorer.score(degrade(clean, kind, amount, seed=seed)).scores
            assert worse["niqe"] > best["niqe"] and worse["brisque"] > best["brisque"], (kind, best, worse)


@pytest.mark.slow
def test_the_same_pictures_give_the_same_bytes_and_nothing_is_overwritten(tmp_path: Path) -> None:
    pictures = [photograph(480, 576, seed) for seed in range(4)]
    fit(pictures, tmp_path / "a")
    (tmp_path / "b").mkdir()
    fit(pictures, tmp_path / "b")
    first = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    with pytest.raises(ValueError, match="not empty"):
        fit(pictures[::-1], tmp_path / "a")
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}


@pytest.mark.slow
def test_too_few_sharp_blocks_say_how_many_it_takes(tmp_path: Path) -> None:
    pictures = []
    for seed in range(4):
        pixels = np.full((480, 480, 3), 128, np.uint8)
        pixels[:192, :192] = photograph(192, 192, seed)
        pictures.append(pixels)
    with pytest.raises(ValueError, match=rf"a regular covariance takes {FEWEST_BLOCKS}"):
        fit(pictures, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken.jpg"
    buffer = io.BytesIO()
    Image.fromarray(photograph(500, 500, 0)).save(buffer, "JPEG")
    broken.write_bytes(buffer.getvalue()[:5000])
    flat, small = np.full((500, 500, 3), 5, np.uint8), photograph(479, 700, 0)
    for pictures, says in (
        ([], "0 pictures.*at least 4"),
        ([flat] * 3, "3 pictures.*at least 4"),
        ([flat] * 4, "all 4 pictures are flat"),
        ([broken] * 4, r"broken\.jpg can't be read"),
        ([tmp_path / "absent.png"] * 4, r"absent\.png can't be read"),
        ([tmp_path] * 4, "can't be read"),
        ([small] * 4, "picture 0 has a side under 480 px"),
        ([flat[..., 0]] * 4, r"give \(H, W, 3\) uint8 RGB"),
    ):
        with pytest.raises(ValueError, match=says):
            fit(pictures, out)
    assert {file.name for file in tmp_path.iterdir()} == {"broken.jpg"}
