"""What test sets are found in folders, which picture belongs to which, and what is refused before work starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynet import rgb, testsets
from dynet.testsets import PictureSet, found, released
from tests.conftest import SHARED
from tests.evaluation import layout, put, rainy, waves

SIGMAS = (15.0, 25.0, 50.0)


def folders(root: Path) -> dict[str, Path]:
    return {task: root / task for task in ("denoise", "derain", "dehaze")}


def pairs(one: PictureSet) -> dict[str, str]:
    """Degraded file to its target."""
    return {entry.degraded.name: entry.target.name for entry in one.entries if entry.degraded}


def refusal(*sets: PictureSet) -> str:
    with pytest.raises(ValueError) as error:
        testsets.check(sets, lambda total, done: None)
    return str(error.value)


# ---------------------------------------------------------------- finding


def test_all_in_one_has_the_papers_columns_in_their_order(tmp_path: Path) -> None:
    haze, rain, noise = released(3, folders(layout(tmp_path)), SIGMAS)
    assert (haze.name, rain.name, noise.name) == ("SOTS", "Rain100L", "BSD68")
    assert pairs(haze) == {"0000_0.8_0.2.jpg": "0000.png", "0001_0.8_0.2.jpg": "0001.png"}
    assert pairs(rain) == {"rain-000.png": "norain-000.png", "rain-001.png": "norain-001.png"}
    assert [entry.name for entry in noise.entries] == ["000", "001"]
    assert (haze.sigmas, rain.sigmas, noise.sigmas) == ((), (), SIGMAS)


@pytest.mark.parametrize(("mode", "names"), [(0, ["BSD68", "Urban100"]), (1, ["Rain100L"]), (2, ["SOTS"])])
def test_a_single_task_has_its_own_sets(mode: int, names: list[str], tmp_path: Path) -> None:
    put(layout(tmp_path) / "denoise" / "Urban100" / "img_001.png", waves(0))
    assert [one.name for one in released(mode, folders(tmp_path), SIGMAS)] == names


def test_urban100_is_not_waited_for(tmp_path: Path) -> None:
    assert [one.name for one in released(0, folders(layout(tmp_path)), SIGMAS)] == ["BSD68"]


@pytest.mark.parametrize("names", [("input", "target"), ("hazy", "gt"), ("rainy", "gt")])
@pytest.mark.parametrize(
    ("degraded", "target"),
    [
        *(("a.png", "a.png"), ("a_1.png", "a_1.jpg"), ("rain-1.png", "norain-1.png")),
        *(("rain-1_x2.png", "norain-1.png"), ("0001_0.8_0.2.jpg", "0001.png"), ("1400_1.PNG", "1400.png")),
    ],
)
def test_a_pair_is_known_by_its_names(degraded: str, target: str, names: tuple[str, str], tmp_path: Path) -> None:
    put(tmp_path / names[0] / degraded, rainy(waves(0)))
    put(tmp_path / names[1] / target, waves(0))
    assert pairs(found("any", tmp_path, SIGMAS)) == {degraded: target}


def test_several_inputs_may_share_a_target(tmp_path: Path) -> None:
    for level in (1, 2):
        put(tmp_path / "hazy" / f"7_{level}.png", waves(level))
    put(tmp_path / "gt" / "7.png", waves(0))
    assert pairs(found("any", tmp_path, SIGMAS)) == {"7_1.png": "7.png", "7_2.png": "7.png"}


def test_a_folder_of_pictures_is_a_set_to_add_noise_to(tmp_path: Path) -> None:
    put(tmp_path / "b.bmp", waves(0))
    put(tmp_path / "a.jpg", waves(1))
    (tmp_path / "SOURCES.tsv").write_text("file")
    (tmp_path / "._a.jpg").write_bytes(b"what some systems leave")
    one = found("any", tmp_path, (25.0,))
    assert [entry.name for entry in one.entries] == ["a", "b"]
    assert one.sigmas == (25.0,)
    testsets.check([one], lambda total, done: None)


def test_a_name_that_is_no_text_gets_one(tmp_path: Path) -> None:
    put(tmp_path / "a.png", waves(0)).rename(tmp_path / "\udcff.png")
    assert [entry.name for entry in found("any", tmp_path, SIGMAS).entries] == [r"\udcff"]


@pytest.mark.parametrize(
    ("folder", "names"), [("cbsd68", 68), ("rain/rain100h", 8), ("haze/sots_indoor", 6), ("haze/sots_outdoor", 1)]
)
def test_real_sets_are_whole(folder: str, names: int) -> None:
    root = SHARED / "data" / "restoration" / folder
    if not root.is_dir():
        pytest.skip("needs the real test sets in ../shared")
    assert len(found("any", root, SIGMAS).entries) == names


# ---------------------------------------------------------------- refusing


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mode 4: give 0 \(denoise\), 1"):
        released(4, folders(tmp_path), SIGMAS)


@pytest.mark.parametrize("task", ["denoise", "derain", "dehaze"])
def test_a_missing_folder_is_named(task: str, tmp_path: Path) -> None:
    (layout(tmp_path) / task).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"/{task} can't be opened: No such file or directory; give the folder"):
        released(3, folders(tmp_path), SIGMAS)


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    (layout(tmp_path) / "derain" / "Rain100L").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="derain has no folder rain100l: put the test pictures there"):
        released(3, folders(tmp_path), SIGMAS)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    put(tmp_path / "target" / "a.png", waves(0))
    with pytest.raises(ValueError, match="input has no pictures"):
        found("any", tmp_path, SIGMAS)
    with pytest.raises(ValueError, match="empty has no pictures"):
        (tmp_path / "empty").mkdir()
        found("any", tmp_path / "empty", SIGMAS)


def test_half_of_the_pairs_is_no_set(tmp_path: Path) -> None:
    put(tmp_path / "input" / "a.png", waves(0))
    with pytest.raises(ValueError, match="has no pairs: put degraded pictures into input/"):
        found("any", tmp_path, SIGMAS)


def test_an_input_without_target_is_named_and_how_many_there_are(tmp_path: Path) -> None:
    root = layout(tmp_path, count=3) / "derain" / "Rain100L"
    (root / "target" / "norain-001.png").unlink()
    (root / "target" / "norain-002.png").unlink()
    with pytest.raises(ValueError, match=r"rain-001\.png has no target in .*target \(2 such pictures\)"):
        found("any", root, SIGMAS)


def test_a_target_without_its_input_is_named(tmp_path: Path) -> None:
    root = layout(tmp_path) / "dehaze"
    (root / "input" / "0001_0.8_0.2.jpg").unlink()
    with pytest.raises(ValueError, match=r"0001\.png is a target without its input in "):
        found("any", root, SIGMAS)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.png", waves(0))
    put(tmp_path / "a.bmp", waves(1))
    with pytest.raises(ValueError, match=r"a\.bmp: another picture there has the same name"):
        found("any", tmp_path, SIGMAS)


def test_what_cannot_be_used_is_said_before_work_starts(tmp_path: Path) -> None:
    root = layout(tmp_path, count=4)
    put(root / "dehaze" / "target" / "0001.png", waves(1, 50, 70))
    put(root / "denoise" / "bsd68" / "001.png", waves(1, 15, 69))
    whole = (root / "denoise" / "bsd68" / "002.png").read_bytes()
    (root / "denoise" / "bsd68" / "002.png").write_bytes(whole[:300])
    (root / "denoise" / "bsd68" / "003.png").write_bytes(b"no picture")
    said = refusal(*released(3, folders(root), SIGMAS))
    assert "0001_0.8_0.2.jpg is 69 x 50 pixels and its target" in said
    assert "0001.png 70 x 50: give pairs of one size; 4 such faults in all" in said
    (noise,) = released(0, folders(root), SIGMAS)
    assert "001.png is 69 x 15 pixels: give pictures of at least 16 a side; 3 such" in refusal(noise)


def test_sixteen_bits_of_grey_are_not_cut_off_in_silence(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 40000, np.uint16)).save(tmp_path / "a.png")
    assert "a.png can't be read: I;16 has other levels" in refusal(found("any", tmp_path, SIGMAS))


def test_a_strangers_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred\n.png").write_bytes(b"")
    said = refusal(found("any", tmp_path, SIGMAS))
    assert r"\x1b[31mred\n.png can't be read" in said


# ---------------------------------------------------------------- reading


def test_a_picture_is_cut_as_the_released_code_cuts_it() -> None:
    pixels = waves(0, 50, 69)
    assert np.array_equal(testsets.cropped(pixels), pixels[1:49, 2:66])
    assert testsets.cropped(waves(0, 31, 32)).shape == (16, 32, 3)
    assert np.array_equal(testsets.cropped(waves(0, 31, 32)), waves(0, 31, 32)[7:23])


def test_a_picture_is_neither_turned_nor_is_a_grey_one_left_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(waves(0, 20, 40)[..., 0]).save(tmp_path / "a.png", exif=exif)
    assert rgb.read(tmp_path / "a.png").shape == (20, 40, 3)
