"""Batched NIMA gives pyiqa's scores. Weights are random, but made to tell these pictures apart: no claim on quality."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from curation.scorers import WeightFile, resolve
from curation.scorers.nima import METRICS, TOLERANCE, Nima
from curation.scorers.pyiqa_build import build, known_metrics, to_tensor
from curation.scorers.weights import pinned
from tests.curation.scorers.conftest import pin, random_nima, textured

Kind = tuple[str, str, int, str]  # metric, backbone, classes, file
Network = tuple[str, tuple[WeightFile, ...]]

CPU = torch.device("cpu")
VGG = ("nima-vgg16-ava", "vgg16", 10, "NIMA_VGG16_ava-dc4e8265.pth")
INCEPTION = ("nima", "inception_resnet_v2", 10, "NIMA_InceptionV2_ava-b0c77c00.pth")
SPAQ = ("nima-spaq", "inception_resnet_v2", 1, "NIMA-spaq-46a7fcb7.pth")


def pictures() -> list[np.ndarray]:
    """Sharp, blurred, dark, pale, noisy, tinted; tall, wide, smaller than the network's input."""
    generator = np.random.default_rng(4)
    sizes = [(400, 600), (700, 333), (299, 299), (224, 500), (120, 90), (513, 1201)]
    sharp, noisy, tinted, blurred, dark, pale = (textured(*size, seed) for seed, size in enumerate(sizes))
    noisy = np.clip(noisy + generator.normal(0, 30, noisy.shape), 0, 255)
    tinted = tinted * generator.uniform(0.2, 1, 3)
    blurred = cv2.GaussianBlur(blurred, (0, 0), 4)
    made = [sharp, noisy, tinted, blurred, dark // 4, 150 + pale // 4]
    return [picture.astype(np.uint8) for picture in (*made, 255 - sharp, 255 - dark // 2, sharp[:, ::2] // 2)]


def tell_apart(network: torch.nn.Module) -> None:
    """Activations of variance 1, as training makes them, and scores that differ by a tenth of their range or more.

    A network with plain random weights gives nearly the same score for everything.
    """
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        batch = torch.cat([network.eval().preprocess(to_tensor(pixels, CPU)) for pixels in pictures()])
        for norm in norms:
            norm.momentum = None  # the mean over what it sees
            norm.reset_running_stats()
        network.train()
        network.base_model(batch)
        network.eval()
        features = network.global_pool(network.base_model(batch)[-1]).flatten(1)
        linear = network.classifier[2]
        linear.weight *= (1 if len(linear.weight) > 1 else 0.2) / linear(features).std(dim=0).mean()
        linear.bias -= linear(features).mean(dim=0)


def made_up(kind: Kind, folder: Path) -> Network:
    metric, backbone, classes, name = kind
    made = random_nima(backbone, classes)
    tell_apart(made)
    torch.save({"params": made.state_dict()}, folder / name)
    pin(folder)
    return metric, resolve([metric], folder)[metric]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Network]:
    """A network of this kind, made once."""
    return functools.cache(lambda kind: made_up(kind, tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def vgg(network: Callable[[Kind], Network]) -> Network:
    return network(VGG)


@pytest.fixture(scope="module")
def ready(vgg: Network) -> Nima:
    scorer = Nima(*vgg)
    scorer.setup()
    return scorer


def theirs(metric: str, files: tuple[WeightFile, ...]) -> Iterator[float]:
    model = build(metric, device=CPU, find=pinned(files))
    for pixels in pictures():
        yield float(model(to_tensor(pixels, CPU)).item())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VGG, INCEPTION, SPAQ], ids=lambda kind: kind[0])
def test_scores_are_pyiqas_and_neighbours_do_not_matter(kind: Kind, network: Callable[[Kind], Network]) -> None:
    metric, files = network(kind)
    scorer = Nima(metric, files)
    scorer.setup()
    expected = np.array(list(theirs(metric, files)))
    reduced = [scorer.reduced(pixels) for pixels in pictures()]
    scores = [score for start in range(0, len(reduced), 8) for score in scorer.score(reduced[start : start + 8])]
    assert expected.std() > 0.1
    assert np.abs(np.array(scores) - expected).max() <= TOLERANCE
    alone = [scorer.score([one])[0] for one in reduced[:6]]
    assert alone == pytest.approx(scores[:6], abs=1e-4)


@pytest.mark.slow
def test_pictures_are_reduced_as_by_torchvision(ready: Nima) -> None:
    for pixels in pictures():
        expected = functional.center_crop(functional.resize(to_tensor(pixels, CPU), 224), 224)
        reduced = ready.reduced(pixels)
        assert reduced.shape == (224, 224, 3) and reduced.dtype == np.float32
        assert reduced == pytest.approx(expected[0].permute(1, 2, 0).numpy(), abs=1e-4)


def test_all_of_pyiqas_nimas_are_known_and_no_other() -> None:
    assert set(METRICS) == {name for name in known_metrics() if name.startswith("nima")}
    with pytest.raises(ValueError, match=r"no NIMA of pyiqa's: choose one of nima, "):
        Nima("musiq", ())


@pytest.mark.slow
def test_one_that_disagrees_with_pyiqa_does_not_start(vgg: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nima, "reduced", lambda self, pixels: np.zeros((224, 224, 3), np.float32))
    with pytest.raises(ValueError, match="--engine pyiqa"):
        Nima(*vgg).setup()
