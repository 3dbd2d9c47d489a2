"""The plain script that one would write without this project: what `jobs/bench.py` measures the job against.

    python -m pipelines.baseline --urls list.parquet --out FOLDER --metric niqe=4.5=niqe.mat

img2dataset downloads (no resize, no re-encoding), pyiqa scores metric by metric in a loop, pictures that pass every
threshold are cut into 512x512 PNG patches in a tar. Written to be fair, not to be slow: pictures that are too small
are not scored, each metric is built once, torch has its default threads. It has none of what makes the job a job: no
deadline, no ledger, no restart, no duplicates, no memory limit.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

SIZE: Final = 512  # pixels
MIN_RES: Final = 1024  # pixels, both sides
THREADS: Final = 64  # downloads at once


def main() -> None:
    """Reads the flags, and goes through the steps one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--urls", type=Path, required=True, help="Parquet with a column URL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metric", action="append", default=[], metavar="NAME=THRESHOLD=WEIGHTS")
    parser.add_argument("--download-only", action="store_true")
    flags = parser.parse_args()
    download(flags.urls, flags.out / "pictures")
    if flags.download_only:
        return
    files = [file for file in sorted(flags.out.glob("pictures/*/*.jpg")) if _is_large(file)]
    kept = set(files)
    for text in flags.metric:
        name, bound, weights = text.split("=", 2)
        kept &= {file for file, score in zip(files, scores(name, weights, files), strict=True) if score <= float(bound)}
    cut(sorted(kept), flags.out / "patches.tar")


def download(urls: Path, folder: Path) -> None:
    """Every picture of the list to a file under `folder`, in one process."""
    from img2dataset import download as img2dataset

    img2dataset(
        url_list=str(urls),
        input_format="parquet",
        url_col="URL",
        output_folder=str(folder),
        output_format="files",
        resize_mode="no",
        disable_all_reencoding=True,
        processes_count=1,
        thread_count=THREADS,
    )


def scores(metric: str, weights: str, files: Sequence[Path]) -> Iterator[float]:
    """pyiqa's score of each file, lower is better; infinity where it has none."""
    import pyiqa

    model = pyiqa.create_metric(metric, device="cpu", pretrained_model_path=weights)
    for file in files:
        try:
            yield model(str(file)).item()
        except (OSError, RuntimeError, AssertionError, ValueError) as error:
            print(f"{file.name}: {metric}: {error}")
            yield float("inf")


def cut(files: Sequence[Path], target: Path) -> None:
    """The whole 512 x 512 patches of each file, from its top left corner on, as PNG."""
    with tarfile.open(target, "w") as tar:
        for file in files:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
            for top in range(0, picture.height - SIZE + 1, SIZE):
                for left in range(0, picture.width - SIZE + 1, SIZE):
                    _add(tar, f"{file.stem}_{top:05}_{left:05}.png", picture.crop((left, top, left + SIZE, top + SIZE)))


def _is_large(file: Path) -> bool:
    try:
        with Image.open(file) as picture:
            return min(picture.size) >= MIN_RES
    except OSError:
        return False


def _add(tar: tarfile.TarFile, name: str, patch: Image.Image) -> None:
    buffer = io.BytesIO()
    patch.save(buffer, "PNG")
    member = tarfile.TarInfo(name)
    member.size = buffer.tell()
    buffer.seek(0)
    tar.addfile(member, buffer)


if __name__ == "__main__":
    main()
