"""Segments are found where a byte-by-byte walk finds them, whatever the bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.segments import ends, gather, marker


def walked(data: bytes, scan: int, count: int) -> list[int]:
    found = [scan - 2]
    for at in range(scan, len(data) - 1):
        if data[at] == 0xFF and data[at + 1] not in (0, 0xFF):
            if data[at + 1] != marker(len(found) - 1, count):
                return found
            found.append(at)
            if len(found) > count:
                return found
    return found


PIECES = st.sampled_from([b"\xff\0", b"\xff\xff", b"\xfe", b"\xff", b"\1", b"\0", b"a", b"bcdefgh" * 3, b"\xff\xd1"])


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=9), st.lists(st.lists(PIECES, max_size=9).map(b"".join), min_size=1, max_size=20), st.data())
def test_ends_are_where_a_walk_finds_them(head: bytes, parts: list[bytes], drawn: st.DataObject) -> None:
    count = drawn.draw(st.integers(1, len(parts) + 2))
    data = head + b"".join(part + bytes([0xFF, marker(i, len(parts))]) for i, part in enumerate(parts))
    data += drawn.draw(st.binary(max_size=9))
    assert ends(data, len(head), count).tolist() == walked(data, len(head), count)


def test_what_is_gathered_are_the_segments_and_new_markers() -> None:
    parts = [bytes([i]) * (i + 1) for i in range(12)]
    data = b"head" + b"".join(part + bytes([0xFF, marker(i, 12)]) for i, part in enumerate(parts))
    out = np.zeros(len(data), np.uint8)
    size = gather(data, ends(data, 4, 12), 4, range(1, 3), range(1, 4), b"HD", out)
    chosen = [5, 6, 7, 9, 10, 11]
    expected = b"HD" + b"".join(parts[one] + bytes([0xFF, marker(i, 6)]) for i, one in enumerate(chosen))
    assert out[:size].tobytes() == expected
