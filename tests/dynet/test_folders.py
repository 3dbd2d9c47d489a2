"""The folders of PromptIR and DyNet: what is found in them, and what is said of what is amiss."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from dynet import folders
from dynet.folders import DE_TYPES, DataError, Source
from tests.dynet.pair_folders import picture, save, write_folders


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "Train")


def checked(sources: tuple[Source, ...], crop: int = 32) -> None:
    folders.check(sources, crop, lambda total, done: None)


def test_each_task_has_its_pictures_and_their_partners(data: Path) -> None:
    found = folders.find(data, DE_TYPES)
    counts = Counter(one.de_type for one in found)
    assert counts == {"denoise_15": 5, "denoise_25": 5, "denoise_50": 5, "derain": 3, "dehaze": 4}
    pairs = {one.name: one.clean.relative_to(data).as_posix() for one in found if one.degraded}
    assert pairs["Derain/rainy/rain-1.png"] == "Derain/gt/norain-1.png"
    assert pairs["Dehaze/synthetic/part1/0001_0.8_0.04.png"] == "Dehaze/original/0001.png"
    checked(found)


def test_the_order_of_the_tasks_given_changes_nothing(data: Path) -> None:
    assert folders.find(data, ["dehaze", "denoise_25"]) == folders.find(data, ["denoise_25", "dehaze", "dehaze"])


def test_only_what_is_asked_for_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "Denoise").mkdir()
    save(picture(0), tmp_path / "Denoise/a.jpg")
    assert [one.name for one in folders.find(tmp_path, ["denoise_15"])] == ["Denoise/a.jpg"]
    with pytest.raises(ValueError, match=r"Derain/gt is no folder: --data and --valid name one"):
        folders.find(tmp_path, ["derain"])


def test_the_released_lists_choose_the_pictures(data: Path, tmp_path: Path) -> None:
    lists = tmp_path / "data_dir"
    for name, text in {
        "noisy/denoise.txt": "00003.png\n00001.png\n",
        "rainy/rainTrain.txt": "rainy/rain-2.png\n",
        "hazy/hazy_outside.txt": "\ufeffsynthetic/part1/0000_0.8_0.08.png\r\n\r\n",
    }.items():
        (lists / name).parent.mkdir(parents=True)
        (lists / name).write_text(text)
    names = [one.name for one in folders.find(data, ["denoise_15", "derain", "dehaze"], lists)]
    assert names == [
        *("Denoise/00003.png", "Denoise/00001.png", "Derain/rainy/rain-2.png"),
        "Dehaze/synthetic/part1/0000_0.8_0.08.png",
    ]
    (lists / "rainy/rainTrain.txt").write_text("rainy/rain-9.png\n")
    with pytest.raises(DataError, match=r"1 pictures are missing: .*rain-9\.png"):
        folders.find(data, ["derain"], lists)


def test_a_picture_without_partner_is_named(data: Path) -> None:
    (data / "Derain/gt/norain-1.png").unlink()
    with pytest.raises(DataError, match=r"1 pictures have no partner: .*Derain/rainy/rain-1\.png"):
        folders.find(data, ["derain"])


def test_a_partner_has_the_same_ending_where_two_have_the_name(data: Path) -> None:
    save(picture(30), data / "Derain/gt/norain-1.jpg")
    found = {one.name: one.clean.name for one in folders.find(data, ["derain"])}
    assert found["Derain/rainy/rain-1.png"] == "norain-1.png"


def test_a_picture_with_two_partners_is_named(data: Path) -> None:
    """Either may be meant, and the wrong one would be trained on in silence."""
    (data / "Dehaze/original/more").mkdir()
    save(picture(30), data / "Dehaze/original/more/0001.PNG")
    with pytest.raises(DataError, match=r"2 pictures have more than one partner: .*0001_.*0001\.png and .*0001\.PNG"):
        folders.find(data, ["dehaze"])


def test_a_hazy_picture_may_have_its_partner_s_very_name(data: Path) -> None:
    for name in ("0000_x", "0001_x"):
        save(picture(3), data / f"Dehaze/original/{name}.png")
        save(picture(4), data / f"Dehaze/synthetic/{name}.png")
    found = {one.name: one.clean.name for one in folders.find(data, ["dehaze"])}
    assert found["Dehaze/synthetic/0001_x.png"] == "0001_x.png"
    assert found["Dehaze/synthetic/part1/0001_0.8_0.04.png"] == "0001.png"


def test_pictures_behind_a_link_are_found_and_a_circle_ends(data: Path, tmp_path: Path) -> None:
    (data / "Dehaze/synthetic/part1").rename(tmp_path / "elsewhere")
    (data / "Dehaze/synthetic/part1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/again").symlink_to(data / "Dehaze/synthetic")
    names = [one.name for one in folders.find(data, ["dehaze"])]
    assert len(names) == 4 and names[0] == "Dehaze/synthetic/part1/0000_0.8_0.04.png"


def test_a_link_to_nothing_is_named(data: Path) -> None:
    (data / "Denoise/00009.png").symlink_to("/nowhere.png")
    with pytest.raises(DataError, match=r"00009\.png can't be read"):
        checked(folders.find(data, ["denoise_15"]))


def test_a_name_that_is_no_text_is_said_before_it_is_hashed(data: Path) -> None:
    save(picture(0), data / os.fsdecode(b"Denoise/\xff\x1b.png"))
    with pytest.raises(DataError, match=r"1 pictures have names that are no UTF-8: .*\\udcff\\x1b\.png\. Then: rename"):
        folders.find(data, ["denoise_15"])


def test_a_picture_as_large_as_the_crop_will_do(data: Path) -> None:
    save(picture(0, 32, 32), data / "Denoise/square.png")
    found = folders.find(data, ["denoise_15"])
    checked(found)
    with pytest.raises(DataError, match=r"square\.png"):
        folders.check([one for one in found if one.clean.name == "square.png"], 33, lambda total, done: None)


def test_every_file_is_read_once(data: Path) -> None:
    """A clean picture has many hazy ones, and noise at three levels."""
    told: list[tuple[int, int]] = []
    folders.check(folders.find(data, DE_TYPES), 32, lambda total, done: told.append((total, done)))
    assert told == [(17, done) for done in range(1, 18)]  # 5 clean, 3 + 3 of rain, 4 + 2 of haze


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("Derain/gt/norain-1.png", picture(0, 40, 57), r"rainy/rain-1\.png: 56 x 40 pixels, .*norain-1\.png has 57"),
        ("Denoise/00002.png", picture(0, 31, 99), r"00002\.png: 99 x 31 pixels, less than a crop of 32"),
        ("Denoise/00002.png", b"<html>", r"00002\.png can't be read: cannot identify"),
        ("Denoise/00002.png", b"", r"00002\.png can't be read"),
    ],
)
def test_what_cannot_be_trained_on_is_named_before_it_begins(data: Path, name: str, spoil: object, said: str) -> None:
    if isinstance(spoil, bytes):
        (data / name).write_bytes(spoil)
    else:
        save(spoil, data / name)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=said):
        checked(folders.find(data, ["denoise_15", "derain"]))


def test_a_truncated_picture_is_named(data: Path) -> None:
    whole = (data / "Denoise/00004.png").read_bytes()
    (data / "Denoise/00004.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"00004\.png can't be read"):
        checked(folders.find(data, ["denoise_15"]))


def test_of_many_a_few_are_named_and_all_are_counted(data: Path) -> None:
    for number in range(30):
        (data / f"Denoise/x{number:02d}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"30 pictures can't .*x00\.png.* and 20 more"):
        checked(folders.find(data, ["denoise_50"]))


@pytest.mark.parametrize("given", [["deblur"], [], ["denoise_15", "denoise"]])
def test_an_unknown_task_is_refused(given: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give some of denoise_15, denoise_25"):
        folders.find(tmp_path, given)


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "Denoise").mkdir()
    with pytest.raises(ValueError, match="Denoise holds no picture"):
        folders.find(tmp_path, ["denoise_15"])
