"""The page of an evaluation: the worst first, cut where the error is, whole in any browser, and nobody's script."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch

import dynet
from dynet.published import TABLES, Column
from dynet.results import Row
from dynet.testsets import found
from dynet.validate import Quality
from pipelines.evaluate import EvaluateJob, evaluate
from pipelines.evaluation_views import SHOWN, SIDE, Gallery, Seen, worst_place
from tests.browser import BINARY, browser
from tests.evaluation import checkpoint, put, rainy, waves

HOSTILE = "<img src=x onerror=alert(1)>"


def row(number: int, psnr: float) -> Row:
    return Row(
        column=Column(set="kodak"),
        picture=str(number),
        depth="L",
        quality=Quality(psnr=psnr, ssim=0.5),
        before=Quality(psnr=20.0, ssim=0.5),
        seconds=1.0,
    )


@pytest.mark.parametrize(("top", "left"), [(0, 0), (17, 120), (70, 250)])
def test_the_cut_is_where_the_largest_error_is(top: int, left: int) -> None:
    errors = np.zeros((SIDE + 70, SIDE + 250), np.float32)
    errors[top : top + SIDE, left : left + SIDE] = 0.5
    assert worst_place(errors) == (top, left)


@pytest.mark.parametrize("size", [(16, 16), (SIDE, 16), (16, SIDE + 9)])
def test_a_small_picture_is_cut_as_far_as_it_goes(size: tuple[int, int]) -> None:
    top, left = worst_place(np.ones(size, np.float32))
    assert (top, left) == (0, 0)


def test_views_are_kept_of_the_worst_alone_and_the_worst_comes_first() -> None:
    gallery = Gallery()
    order = np.random.default_rng(0).permutation(3 * SHOWN)
    for number in order:
        seen = Seen(rows=(row(int(number), 20.0 + number),), files={"L": "a.png"})
        gallery.add(seen, waves(0, 32, 32), waves(1, 32, 32), {"L": waves(2, 32, 32)})
    column = Column(set="kodak")
    assert [one.seen.rows[0].picture for one in gallery.worst[column]] == [str(n) for n in range(SHOWN)]
    assert len(gallery.seen[column]) == 3 * SHOWN


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of pairs and of noise, of pictures with names that nobody would give."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("page")
    for number, name in enumerate([HOSTILE, "\u202egnp", "m" * 120, "%2e%2e#a?b", "plain"]):
        clean = waves(number, 208, 224) if name == "plain" else waves(number, 48, 64 if number % 2 else 112)
        put(root / "rain" / "input" / f"{name}.png", rainy(clean))
        put(root / "rain" / "target" / f"{name}.png", clean)
    sets = (found("rain", root / "rain", ()), found("BSD68", root / "rain" / "target", (15.0, 50.0)))
    restorer = dynet.load(checkpoint(root / "narrow.pt"), device="cpu")
    job = EvaluateJob(sets=sets, depths=("1,1,1,1", "2,1,1,1"), published=TABLES[3], notes=("f32",))
    (root / "out").mkdir()
    evaluate(job, restorer, root / "out", lambda total, done, note: None)
    return root / "out"


def test_names_are_text_and_nothing_else(written: Path) -> None:
    page = (written / "index.html").read_text("utf-8")
    assert HOSTILE not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\u202e" not in page and r"\u202egnp" in page
    assert "<script" not in page and "http:" not in page and "https:" not in page


def test_each_restored_picture_is_a_link_that_leads_there(written: Path) -> None:
    links = set(re.findall(r'href="(restored/[^"]*)"', (written / "index.html").read_text("utf-8")))
    there = {path.relative_to(written).as_posix() for path in written.rglob("*.png")}
    assert {unquote(link) for link in links} == there
    assert len(there) == 5 * 3 * 2


@pytest.mark.slow
@pytest.mark.skipif(BINARY is None, reason="needs Chromium (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_complaint_and_without_scrolling_sideways(
    written: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    with browser(tmp_path / "profile") as tab:
        tab.open((written / "index.html").as_uri(), width, dark)
        tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert tab.ask("document.images.length") == 5 * 3 * 5
        assert tab.ask("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        light = sum(map(int, re.findall(r"\d+", tab.ask("getComputedStyle(document.body).backgroundColor"))[:3])) / 3
        assert (light < 80) == dark, "the style sheet is let through by the policy"
        assert tab.complaints == []
