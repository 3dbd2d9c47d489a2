"""Building one pyiqa metric so that every weight file it asks for comes from us.

pyiqa fetches weights by itself, without a time limit or a digest, unpickles them unrestricted, and its timm-based
metrics download an ImageNet backbone (about 220 MB for NIMA) only to overwrite all of it. While a metric is built
here, its two loaders (pyiqa's and torch.hub's) see an empty cache and ask `find` instead, `torch.load` is held to
tensors, and backbones that a strict checkpoint overwrites are built without weights. That reaches into four
names of pyiqa and torch; a release that renames one fails loudly, at the first build.

Not seen by `find`: what a metric takes from the Hugging Face hub or CLIP's own loader (clipiqa, qalign, ...).
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import math
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import torch

#: From a weight file's URL and name to where it lies, checked.
Find = Callable[[str, str], Path]

#: No-reference by pyiqa's table, but they judge a whole set, or need a caption.
_NOT_ONE_PICTURE: Final = frozenset({"fid", "fid_dinov2", "sfid", "inception_score", "clipscore"})
#: Architectures whose checkpoint holds the timm backbone too, and is loaded with `strict=True`.
_HOLD_THEIR_BACKBONE: Final = frozenset({"NIMA", "HyperNet", "CFANet", "MANIQA"})
_NETWORK_SECONDS: Final = 10.0
_TRIAL_SIDE: Final = 384  # pixels


class WeightMissing(ValueError):
    """A weight file that is nowhere to be had; the message is one sentence that names it and the remedy."""


class WeightRefused(ValueError):
    """A weight file that lies there, but is not the one that it should be."""


@functools.lru_cache(maxsize=1)
def _table() -> Mapping[str, Mapping[str, Any]]:
    """pyiqa's own table of metrics, run as a file: importing pyiqa takes 6 s, and `judge` needs no model."""
    package = importlib.util.find_spec("pyiqa")
    assert package is not None and package.submodule_search_locations, "pyiqa is a dependency"
    path = Path(package.submodule_search_locations[0]) / "default_model_configs.py"
    spec = importlib.util.spec_from_file_location("_pyiqa_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DEFAULT_CONFIGS


@functools.lru_cache(maxsize=1)
def known_metrics() -> tuple[str, ...]:
    """Every pyiqa metric that scores one picture without a reference, sorted."""
    names = (name for name, entry in _table().items() if entry["metric_mode"] == "NR")
    return tuple(sorted(set(names) - _NOT_ONE_PICTURE))


def check_metrics(metrics: Sequence[str], others: Sequence[str] = ()) -> None:
    """Raise ValueError unless each name is a pyiqa metric that scores one picture without a reference.

    `others`: names that are not pyiqa's, which a wrong one may have meant.
    """
    if not metrics:
        raise ValueError("no metric was named: give at least one, such as niqe")
    for metric in metrics:
        if metric in known_metrics():
            continue
        if metric not in _table():
            problem = f"pyiqa has no metric '{metric}'"
        elif metric in _NOT_ONE_PICTURE:
            problem = f"'{metric}' needs a set of pictures or a caption, not one picture"
        else:
            problem = f"'{metric}' compares with a reference picture, and a URL has none"
        names = [*known_metrics(), *others]
        near = difflib.get_close_matches(metric, names, n=4, cutoff=0.4) or ["niqe", "brisque", "nima"]
        raise ValueError(f"{problem}: did you mean {', '.join(near)}?")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"a metric is named twice in {', '.join(metrics)}: name each once")


def lower_better(metric: str) -> bool:
    """Whether a lower score is better, from pyiqa's table. Raises ValueError as `check_metrics` does."""
    check_metrics([metric])
    return bool(_table()[metric].get("lower_better", False))


@contextmanager
def _swapped(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Hold every `torch.load` to `weights_only=True`, those too that say False: torch's own switch."""
    switch = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in switch}
    os.environ.update(switch)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _network_limited() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _loading_through(find: Find) -> Iterator[None]:
    """Make pyiqa's and torch.hub's loaders ask `find` for every file, whatever lies in their caches."""
    import timm  # noqa: F401 (before the swap: it takes a copy of the name that is swapped)
    import torch.hub
    from pyiqa.utils import download_util

    def serve(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        Path(dst).symlink_to(find(url, Path(dst).name).absolute())

    with ExitStack() as stack:
        empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="weights-"))
        stack.enter_context(_swapped(download_util, "DEFAULT_CACHE_DIR", empty))
        stack.enter_context(_swapped(download_util, "download_url_to_file", serve))
        stack.enter_context(_swapped(torch.hub, "_hub_dir", empty))
        stack.enter_context(_swapped(torch.hub, "download_url_to_file", serve))
        yield


@contextmanager
def without_backbone_weights() -> Iterator[None]:
    """timm's networks are made with random weights, also where trained ones are asked for."""
    import timm

    create = timm.create_model

    def create_empty(*args: Any, **kwargs: Any) -> torch.nn.Module:
        return create(*args, **{**kwargs, "pretrained": False})

    with _swapped(timm, "create_model", create_empty):
        yield


def to_tensor(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 to pyiqa's input, (1, 3, H, W) float32 in [0, 1]."""
    import torch

    floats = torch.from_numpy(pixels.astype(np.float32)).to(device)
    return floats.permute(2, 0, 1).unsqueeze(0).contiguous() / 255


def _try_out(model: torch.nn.Module, metric: str, device: torch.device) -> None:
    """Score one made-up picture: weights of the wrong shape or full of NaN show now, not at every picture."""
    noise = np.random.default_rng(0).integers(0, 256, (_TRIAL_SIDE, _TRIAL_SIDE, 3), dtype=np.uint8)
    value = float(model(to_tensor(noise, device)).item())
    if not math.isfinite(value):
        raise ValueError(f"{metric} gives {value} for a picture of noise")


def build(metric: str, *, device: torch.device, find: Find) -> torch.nn.Module:
    """Build a pyiqa metric on `device`, every weight file taken through `find`, and try it on one picture.

    Raises ValueError where a file is not this metric's weights (a pickle that would run code counts), and
    WeightMissing where one can't be had, both before a single real picture is touched.
    """
    import pyiqa

    files: list[Path] = []

    def find_and_note(url: str, name: str) -> Path:
        files.append(find(url, name))
        return files[-1]

    try:
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            for guard in (_tensors_only(), _network_limited(), _loading_through(find_and_note)):
                stack.enter_context(guard)
            if _table()[metric]["metric_opts"]["type"] in _HOLD_THEIR_BACKBONE:
                stack.enter_context(without_backbone_weights())
            model = pyiqa.create_metric(metric, device=device)
        _try_out(model, metric, device)
    except (WeightMissing, WeightRefused):
        raise
    except ImportError as error:
        raise ValueError(f"{metric} needs a package ({error}): install it, or choose another metric") from error
    except (pickle.UnpicklingError, RuntimeError, LookupError, ValueError, TypeError, EOFError, OSError) as error:
        raise _explained(metric, files, error) from error
    return model


def _explained(metric: str, files: list[Path], error: Exception) -> ValueError:
    what = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError) or not files:
        return WeightMissing(
            f"{metric} could not be built ({what}): it needs more than weight files by name, so run once with "
            "a network or choose another metric"
        )
    return WeightRefused(
        f"{files[-1]} holds no usable weights for {metric} ({what}): put the right file there, or delete it"
    )
