"""What was published of other networks and of DyNet itself: tables 1 to 4 of arXiv 2404.02154, as they stand there.

Three figures can't be right, and are left as they are: by the averages BRDNet's last SSIM is 0.693 and DL's first
0.931; IRCNN's first on Urban100 repeats DnCNN's last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dynet.validate import Quality

SOURCE: Final = "arXiv 2404.02154"
#: Pictures that the published figures are of; of SOTS the outdoor ones.
PICTURES: Final = {"sots": 500, "rain100l": 100, "bsd68": 68, "urban100": 100}
_ALIASES: Final = {"cbsd68": "bsd68"}  # the same pictures: the paper's are in colour too


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What a figure is of. `sigma`: of the noise, in grey levels; None for pairs."""

    set: str
    sigma: float | None = None

    def __str__(self) -> str:
        return self.set if self.sigma is None else f"{self.set} σ={self.sigma:g}"

    @property
    def key(self) -> tuple[str, float | None]:
        """The same for the same test, however its set's name is written."""
        name = self.set.casefold()
        return _ALIASES.get(name, name), self.sigma


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A table of the paper: a row a method, a figure for each of `columns`. `averages`: of all columns, or empty."""

    number: int
    setting: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Quality, ...]]
    averages: Mapping[str, Quality]


def _noisy(name: str) -> tuple[Column, ...]:
    return tuple(Column(set=name, sigma=sigma) for sigma in (15, 25, 50))


def _figures(text: str) -> dict[str, tuple[Quality, ...]]:
    """Of lines of a method and its figures, PSNR/SSIM."""
    return {words[0]: tuple(map(_quality, words[1:])) for words in map(str.split, text.strip().splitlines())}


def _quality(word: str) -> Quality:
    psnr, ssim = map(float, word.split("/"))
    return Quality(psnr=psnr, ssim=ssim)


def _all_in_one() -> Published:
    lines = _figures("""
        BRDNet    23.23/0.895  27.42/0.895  32.26/0.898  29.76/0.836  26.34/0.836  27.80/0.843
        LPNet     20.84/0.828  24.88/0.784  26.47/0.778  24.77/0.748  21.26/0.552  23.64/0.738
        FDGAN     24.71/0.924  29.89/0.933  30.25/0.910  28.81/0.868  26.43/0.776  28.02/0.883
        MPRNet    25.28/0.954  33.57/0.954  33.54/0.927  30.89/0.880  27.56/0.779  30.17/0.899
        DL        26.92/0.391  32.62/0.931  33.05/0.914  30.41/0.861  26.90/0.740  29.98/0.875
        AirNet    27.94/0.962  34.90/0.967  33.92/0.933  31.26/0.888  28.00/0.797  31.20/0.910
        PromptIR  30.58/0.974  36.37/0.972  33.98/0.933  31.31/0.888  28.06/0.799  32.06/0.913
        DyNet-S   31.51/0.980  38.11/0.981  34.06/0.935  31.41/0.891  28.15/0.802  32.65/0.918
        DyNet-L   31.98/0.981  38.71/0.983  34.11/0.936  31.44/0.892  28.18/0.803  32.88/0.920
    """)
    return Published(
        number=1,
        setting="one network for haze, rain and noise",
        columns=(Column(set="SOTS"), Column(set="Rain100L"), *_noisy("BSD68")),
        rows={name: figures[:-1] for name, figures in lines.items()},
        averages={name: figures[-1] for name, figures in lines.items()},
    )


def _dehazing() -> Published:
    lines = _figures("""
        DehazeNet  22.46/0.851
        MSCNN      22.06/0.908
        AODNet     20.29/0.877
        EPDN       22.57/0.863
        FDGAN      23.15/0.921
        AirNet     23.18/0.900
        Restormer  30.87/0.969
        PromptIR   31.31/0.973
        DyNet-L    32.07/0.982
    """)
    return Published(number=2, setting="a network for haze", columns=(Column(set="SOTS"),), rows=lines, averages={})


def _deraining() -> Published:
    lines = _figures("""
        DIDMDN     23.79/0.773
        UMR        32.39/0.921
        SIRR       32.37/0.926
        MSPFN      33.50/0.948
        LPNet      33.61/0.958
        AirNet     34.90/0.977
        Restormer  36.74/0.978
        PromptIR   37.04/0.979
        DyNet-L    38.85/0.984
    """)
    return Published(number=3, setting="a network for rain", columns=(Column(set="Rain100L"),), rows=lines, averages={})


def _denoising() -> Published:
    lines = _figures("""
        CBM3D      33.50/0.922  30.69/0.868  27.36/0.763  33.93/0.941  31.36/0.909  27.93/0.840
        DnCNN      33.89/0.930  31.23/0.883  27.92/0.789  32.98/0.931  30.81/0.902  27.59/0.833
        IRCNN      33.87/0.929  31.18/0.882  27.88/0.790  27.59/0.833  31.20/0.909  27.70/0.840
        FFDNet     33.87/0.929  31.21/0.882  27.96/0.789  33.83/0.942  31.40/0.912  28.05/0.848
        BRDNet     34.10/0.929  31.43/0.885  28.16/0.794  34.42/0.946  31.99/0.919  28.56/0.858
        AirNet     34.14/0.936  31.48/0.893  28.23/0.806  34.40/0.949  32.10/0.924  28.88/0.871
        Restormer  34.29/0.937  31.64/0.895  28.41/0.810  34.67/0.969  32.41/0.927  29.31/0.878
        PromptIR   34.34/0.938  31.71/0.897  28.49/0.813  34.77/0.952  32.49/0.929  29.39/0.881
        DyNet-L    34.40/0.938  31.76/0.897  28.53/0.813  34.84/0.952  32.60/0.930  29.52/0.882
    """)
    columns = (*_noisy("BSD68"), *_noisy("Urban100"))
    return Published(number=4, setting="a network for noise", columns=columns, rows=lines, averages={})


#: By the mode of the released test whose sets it is about.
TABLES: Final[Mapping[int, Published]] = {0: _denoising(), 1: _deraining(), 2: _dehazing(), 3: _all_in_one()}
