"""A tar's bytes follow from its members, its size is known beforehand, and the reader finds every fault."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards import tar
from shards.codec import cut
from shards.format import Description, sample_name, to_json
from tests.shards.test_patches import texture

PAIRS = [("a.jpg", b"x" * 700), ("a.json", b"{}"), ("b.png", b""), ("b.json", b"y" * 512)]


def tarred(pairs: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    tar.write(buffer, pairs)
    return buffer.getvalue()


def foreign(*headers: tarfile.TarInfo, data: bytes = b"z") -> bytes:
    """A tar as another program writes it, each header with as many bytes as it says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for header in headers:
            file.addfile(header, io.BytesIO(data * header.size))
    return buffer.getvalue()


def header(name: str, size: int = 1, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return info


def test_writing_twice_gives_the_same_bytes_wherever_they_go(tmp_path: Path) -> None:
    tar.write(tmp_path / "a.tar", PAIRS)
    assert (tmp_path / "a.tar").read_bytes() == tarred(PAIRS) == tarred(PAIRS)


def test_headers_carry_no_time_and_no_owner() -> None:
    with tarfile.open(fileobj=io.BytesIO(tarred(PAIRS))) as file:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in file} == {(0, 0, 0, "", "", 0o644)}


def test_members_are_read_back_and_lie_where_writing_said() -> None:
    data, placed = tarred(PAIRS), tar.write(io.BytesIO(), PAIRS)
    assert [(member.name, member.data) for member in tar.members(data)] == PAIRS
    assert [data[at.offset : at.offset + at.size] for at in placed] == [content for _, content in PAIRS]
    assert [member.offset for member in tar.members(data)] == [at.offset for at in placed]


@given(st.lists(st.integers(0, 3000), max_size=40))
def test_the_size_of_a_tar_is_known_beforehand(sizes: list[int]) -> None:
    data = tarred([(f"{index}.png", bytes(size)) for index, size in enumerate(sizes)])
    assert len(data) == tar.tar_size(tar.stored_size(*sizes))


@given(st.lists(st.integers(512, 30_000).map(lambda n: n // 512 * 512), max_size=60), st.integers(0, 90_000))
def test_packing_keeps_order_fills_shards_and_stays_within_the_bound(sizes: list[int], most: int) -> None:
    ranges = tar.pack(sizes, most)
    assert [index for each in ranges for index in each] == list(range(len(sizes)))
    totals = [sum(sizes[index] for index in each) for each in ranges]
    for each, total in zip(ranges, totals, strict=True):
        assert len(each) == 1 or (len(each) > 1 and tar.tar_size(total) <= most)
    for each, total in zip(ranges, totals, strict=True):  # the next sample would not have fitted
        if each.stop < len(sizes):
            assert tar.tar_size(total + sizes[each.stop]) > most


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/b.jpg", ".a", "", "ä.jpg", "a\n.jpg", "a" * 101])
def test_odd_names_are_neither_written_nor_read(name: str) -> None:
    with pytest.raises(ValueError, match="member"):
        tar.write(io.BytesIO(), [(name, b"")])
    with pytest.raises(tar.TarError):
        list(tar.members(foreign(header(name))))


def test_a_name_comes_once() -> None:
    with pytest.raises(ValueError, match="once"):
        tar.write(io.BytesIO(), [("a.jpg", b""), ("a.jpg", b"")])
    with pytest.raises(tar.TarError, match="two members"):
        list(tar.members(foreign(header("a.jpg"), header("a.jpg"))))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_regular_files_are_read(kind: bytes) -> None:
    with pytest.raises(tar.TarError, match="regular"):
        list(tar.members(foreign(header("a.jpg", 0, kind))))


def test_a_member_over_the_cap_is_refused_before_it_is_read() -> None:
    with pytest.raises(tar.TarError, match="over 10"):
        list(tar.members(tarred([("a.jpg", b"x" * 11)]), max_member=10))


def test_a_tar_cut_anywhere_before_its_end_mark_is_refused() -> None:
    data = tarred(PAIRS)
    content = tar.stored_size(*(len(body) for _, body in PAIRS))
    for length in {*range(0, content + 1024, 128), content - 1, content + 1023}:
        with pytest.raises(tar.TarError):
            list(tar.members(data[:length]))


def test_a_broken_header_in_the_middle_is_no_end() -> None:
    data = bytearray(tarred(PAIRS))
    data[tar.stored_size(700) + 148] ^= 0xFF  # the checksum of the second header
    with pytest.raises(tar.TarError, match="corrupt"):
        list(tar.members(bytes(data)))


@pytest.mark.parametrize("data", [b"", b"<html>" * 2000, os.urandom(20_480)])
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    with pytest.raises(tar.TarError):
        list(tar.members(data))


def test_stock_webdataset_reads_a_shard(tmp_path: Path) -> None:
    pixels = np.tile(texture(), (2, 2, 1))
    pairs = []
    for patch in cut(b"", pixels, format="png").patches:
        name = sample_name("0123456789abcdef", patch.top, patch.left)
        description = Description(
            key="0123456789abcdef",
            url="https://example.org/",
            source="test",
            width=1024,
            height=1024,
            top=patch.top,
            left=patch.left,
            size=patch.size,
            flat_fraction=patch.flat_fraction,
            codec=patch.codec,
            scores={"niqe": 3.0},
        )
        pairs += [(f"{name}.png", patch.data), (f"{name}.json", to_json(description))]
    tar.write(tmp_path / "train-000000.tar", pairs)
    dataset = webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False)
    samples = list(dataset.decode("pil").to_tuple("jpg;png", "json"))
    assert len(samples) == 4
    for image, entries in samples:
        assert isinstance(image, Image.Image)
        window = pixels[entries["top"] : entries["top"] + 512, entries["left"] : entries["left"] + 512]
        assert np.array_equal(np.asarray(image), window)
        assert entries["niqe"] == 3.0
