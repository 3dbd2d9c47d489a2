"""Any of pyiqa's metrics by name, no stranger's pickle runs, and nothing of pyiqa stays bent."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from curation.scorers import WeightRefused, check_metrics, known_metrics, lower_better, resolve
from curation.scorers.catalog import OWN


def test_the_table_read_without_pyiqa_is_pyiqas() -> None:
    import pyiqa
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    left_out = {"fid", "fid_dinov2", "sfid", "inception_score", "clipscore"}
    assert set(known_metrics()) - set(OWN) == set(pyiqa.list_models("NR")) - left_out
    for metric in set(known_metrics()) - set(OWN):
        assert lower_better(metric) is bool(DEFAULT_CONFIGS[metric].get("lower_better", False)), metric
    assert lower_better("niqe") and lower_better("brisque") and not lower_better("nima")


def test_judging_needs_neither_pyiqa_nor_torch() -> None:
    code = (
        "import sys; from curation.scorers import lower_better; lower_better('niqe'); "
        "print('pyiqa' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["niqee"], "no metric 'niqee': did you mean niqe"),
        (["niqe", "brisk"], "did you mean"),
        (["psnr"], "compares with a reference"),
        (["fid"], "set of pictures"),
        (["niqe", "niqe"], "named twice"),
        ([], "no metric was named"),
    ],
)
def test_a_wrong_name_is_refused_with_near_ones(names: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_metrics(names)


class Hostile:
    """Touches a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_never_runs(weights_dir: Path, tmp_path: Path, zipped: bool) -> None:
    trap, file = tmp_path / "sprung", weights_dir / "brisque_svm_weights.pth"
    if zipped:
        torch.save((Hostile(trap), torch.zeros(1, 36)), file)
    else:
        file.write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(WeightRefused, match=r"no usable weights for brisque.*delete it"):
        resolve(["brisque"], weights_dir)
    assert not trap.exists()
    if zipped:  # and it is a trap
        torch.load(file, weights_only=False)
        assert trap.exists()


@pytest.mark.parametrize(
    "params",
    [
        {"mu": np.zeros(36)},
        {"mu_prisparam": np.zeros(35), "cov_prisparam": np.eye(35)},
        {"mu_prisparam": np.full(36, np.nan), "cov_prisparam": np.eye(36)},
    ],
    ids=["other names", "other shape", "NaN"],
)
def test_weights_that_can_score_nothing_are_refused_at_once(weights_dir: Path, params: dict) -> None:
    scipy.io.savemat(weights_dir / "niqe_modelparameters.mat", params)
    with pytest.raises(WeightRefused, match=r"niqe_modelparameters\.mat holds no usable weights"):
        resolve(["niqe"], weights_dir)


def test_a_build_leaves_nothing_bent(weights_dir: Path) -> None:
    import os

    import timm
    import torch.hub
    from pyiqa.utils import download_util

    def state() -> tuple[object, ...]:
        return (
            download_util.DEFAULT_CACHE_DIR,
            download_util.download_url_to_file,
            torch.hub.download_url_to_file,
            torch.hub._hub_dir,
            timm.create_model,
            os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"),
        )

    before = state()
    resolve(["niqe"], weights_dir)
    with pytest.raises(ValueError):
        resolve(["nima-vgg16-ava"], weights_dir)
    assert state() == before
