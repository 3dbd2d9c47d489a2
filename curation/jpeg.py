"""JPEG files by marker, then code by code: is every block of the picture there? (ITU-T T.81)"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from PIL import JpegImagePlugin

from curation.containers import Opened, Refused, exif_orientation, upright
from curation.records import Reason

_NO_PAYLOAD: Final = frozenset((0x00, 0x01, 0xD8, *range(0xD0, 0xD8)))
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP2, _EOI, _SOS, _DHT, _DQT, _DRI = 0xE1, 0xE2, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD
#: Segments Pillow needs: tables, frame, scan, JFIF, Adobe's transform; of APP2 the colour profile alone.
_JPEG_KEPT: Final = frozenset((*_FRAMES, _DHT, _DQT, _DRI, 0xE0, 0xEE))


#: The luma quantisation table that most encoders scale (T.81, table K.1); its order does not matter here.
_LUMA: Final = np.array(
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
        51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
        120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """A JPEG frame header: size in pixels, per component (id, horizontal, vertical sampling factor)."""

    progressive: bool
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]

    def blocks(self, index: int) -> tuple[int, int]:
        """Rows and columns of 8 × 8 blocks of a component coded alone (T.81, A.2.2)."""
        _, h, v = self.components[index]
        h_max, v_max = max(c[1] for c in self.components), max(c[2] for c in self.components)
        return -(-self.height * v // (8 * v_max)), -(-self.width * h // (8 * h_max))

    def mcus(self) -> int:
        """Units of an interleaved scan (T.81, A.2.3)."""
        h_max, v_max = max(c[1] for c in self.components), max(c[2] for c in self.components)
        return -(-self.height // (8 * v_max)) * -(-self.width // (8 * h_max))


def _segment(body: bytes, at: int) -> tuple[int, int, int]:
    """(marker, start, end) of the next segment's payload, from byte `at`; junk between segments is skipped."""
    while True:
        at = body.find(b"\xff", at)
        while at >= 0 and body[at : at + 1] == b"\xff":
            at += 1
        if at < 0 or at >= len(body):
            raise Refused(Reason.TRUNCATED, "jpeg: no end marker")
        marker = body[at]
        at += 1
        if marker == _EOI:
            return marker, at, at
        if marker not in _NO_PAYLOAD:
            end = at + int.from_bytes(body[at : at + 2], "big")
            if end > len(body) or at + 2 > len(body):
                raise Refused(Reason.TRUNCATED, f"jpeg: ends in segment {marker:02x}")
            if end < at + 2:
                raise Refused(Reason.CORRUPT, f"jpeg: segment {marker:02x} of {end - at} bytes")
            return marker, at + 2, end


def _frame(marker: int, payload: bytes) -> _Frame:
    if marker not in (0xC0, 0xC1, 0xC2):
        raise Refused(Reason.FORMAT_REFUSED, f"jpeg: coding process SOF{marker - 0xC0}")
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise Refused(Reason.CORRUPT, "jpeg: frame header")
    if payload[0] != 8 or payload[5] not in (1, 3, 4):
        raise Refused(Reason.FORMAT_REFUSED, f"jpeg: {payload[5]} components of {payload[0]} bits")
    parts = tuple((payload[i], payload[i + 1] >> 4, payload[i + 1] & 15) for i in range(6, len(payload), 3))
    if not all(1 <= h <= 4 and 1 <= v <= 4 for _, h, v in parts):
        raise Refused(Reason.CORRUPT, "jpeg: sampling factors")
    height, width = struct.unpack_from(">HH", payload, 1)
    return _Frame(progressive=marker == 0xC2, width=width, height=height, components=parts)


def open_jpeg(body: bytes) -> Opened:
    """Walks up to the first scan. What follows the end marker (a gain map, a maker's trailer) is not looked at."""
    kept, at, orientation, frame, quality = [b"\xff\xd8"], 2, 1, None, 100.0
    while True:
        marker, start, at = _segment(body, at)
        if marker in (_SOS, _EOI):
            break
        if marker in _FRAMES:
            frame = _frame(marker, body[start:at])
        if marker == _APP1 and orientation == 1 and body.startswith(b"Exif\0", start):
            orientation = exif_orientation(body[start:at])
        if marker == _DQT:
            quality = min(quality, _quality(body[start:at]))
        if marker in _JPEG_KEPT or (marker == _APP2 and body.startswith(b"ICC_PROFILE\0", start)):
            kept.append(body[start - 4 : at])
    if frame is None or marker == _EOI:
        raise Refused(Reason.CORRUPT, "jpeg: no frame before the first scan")
    kept.append(body[start - 4 :])
    return Opened(
        header=upright("jpeg", frame.width, frame.height, orientation, quality),
        open=JpegImagePlugin.JpegImageFile,
        body=b"".join(kept),
    )


#: Sum of the entries of libjpeg's luma table (T.81, K.1) at quality 1 to 100, as jpeg_quality_scaling makes them.
_LUMA_SUMS: Final = np.array(
    [np.clip((_LUMA * (5000 // q if q < 50 else 200 - 2 * q) + 50) // 100, 1, 255).sum() for q in range(1, 101)]
)


def _quality(tables: bytes) -> float:
    """The quality at which libjpeg's luma table has the sum of table 0 of a DQT segment; 100 where it has none.

    Exact for tables by libjpeg; another encoder's are placed by how coarse they are on the whole.
    """
    at = 0
    while at < len(tables):
        wide, number = tables[at] >> 4 != 0, tables[at] & 15
        entries = tables[at + 1 : at + 65 + 64 * wide]
        at += 65 + 64 * wide
        if number == 0 and at <= len(tables):
            total = int(np.frombuffer(entries, ">u2" if wide else "u1").sum())
            return float(np.float32(np.interp(-total, -_LUMA_SUMS, np.arange(1, 101))))
    return 100.0


class _Scans:
    """What decoding a JPEG's scans needs to remember: tables, restart interval, which coefficients are coded."""

    def __init__(self) -> None:
        self.frame: _Frame | None = None
        self.codes = np.zeros((8, 1 << 16), np.uint16)  # [class * 4 + id, next 16 bits] -> length << 8 | symbol
        self.restart = 0
        self.work = 0  # tables and scans so far
        self.nonzero: list[np.ndarray] = []  # per component one bit per coefficient that is not zero
        self.precise = np.zeros((4, 64), bool)  # coded down to the last bit

    def start(self, frame: _Frame) -> None:
        if self.frame is not None:
            raise Refused(Reason.CORRUPT, "jpeg: two frames")
        self.frame = frame
        if frame.progressive:
            sizes = [frame.blocks(i) for i in range(len(frame.components))]
            self.nonzero = [np.zeros(rows * columns, np.uint64) for rows, columns in sizes]

    def _count(self) -> None:
        """A few bytes of scan or table cost a pass over everything: a file made of them could take hours."""
        self.work += 1
        if self.work > _MOST_TABLES_AND_SCANS:
            raise Refused(Reason.CORRUPT, f"jpeg: more than {_MOST_TABLES_AND_SCANS} tables and scans")

    def define(self, payload: bytes) -> None:
        """Huffman tables (T.81, B.2.4.2 and C) as a look-up of the next 16 bits; 0 is no code."""
        at = 0
        while at + 17 <= len(payload):
            self._count()
            slot, counts = payload[at], np.frombuffer(payload, np.uint8, 16, at + 1).astype(np.int64)
            symbols = np.frombuffer(payload[at + 17 : at + 17 + counts.sum()], np.uint8)
            spans = np.repeat(1 << np.arange(15, -1, -1), counts)
            if slot & 0xEC or len(symbols) != len(spans) or spans.sum() > 1 << 16:
                raise Refused(Reason.CORRUPT, "jpeg: Huffman table")
            entries = np.repeat(np.arange(1, 17, dtype=np.uint16) << 8, counts) | symbols
            table = self.codes[(slot >> 4) * 4 + (slot & 3)]
            table[:] = 0
            table[: spans.sum()] = np.repeat(entries, spans)
            at += 17 + len(symbols)

    def scan(self, header: bytes, body: bytes, at: int) -> int:
        """Checks one scan whose coded data start at `at`; returns where they end."""
        self._count()
        frame = self.frame
        if frame is None or len(header) < 4 or len(header) != 4 + 2 * header[0]:
            raise Refused(Reason.CORRUPT, "jpeg: scan header")
        index = {part[0]: i for i, part in enumerate(frame.components)}
        chosen = [(index.get(header[i], -1), header[i + 1]) for i in range(1, 1 + 2 * header[0], 2)]
        first, last, high, low = header[-3], header[-2], header[-1] >> 4, header[-1] & 15
        if not frame.progressive:
            first, last, high, low = 0, 63, 0, 0
        bands = (
            last == 0
            if first == 0 and frame.progressive
            else first <= last <= 63 and len(chosen) <= 1 + 3 * (first == 0)
        )
        if not chosen or min(chosen)[0] < 0 or not bands:
            raise Refused(Reason.CORRUPT, "jpeg: scan header")
        bits, cuts, end = _coded_bits(body, at)
        if first == 0:
            faults = self._dc_scan(frame, chosen, bits, cuts, last == 63, bool(high))
        else:
            part, tables = chosen[0]
            faults = _ac_scan(
                bits, cuts, self.codes[4 + (tables & 3)], self.nonzero[part], first, last, bool(high), self.restart
            )
        _judge(faults, end)
        for part, _ in chosen:
            self.precise[part, first : last + 1] |= low == 0
        return end

    def _dc_scan(
        self,
        frame: _Frame,
        chosen: list[tuple[int, int]],
        bits: np.ndarray,
        cuts: np.ndarray,
        sequential: bool,
        refine: bool,
    ) -> tuple[int, int]:
        """Sequential scans and progressive scans of DC: per unit a fixed list of blocks."""
        if len(chosen) == 1:
            units, repeats = int(np.prod(frame.blocks(chosen[0][0]))), [1]
        else:
            units, repeats = frame.mcus(), [frame.components[i][1] * frame.components[i][2] for i, _ in chosen]
        tables = np.repeat([[t >> 4 & 3, 4 + (t & 3)] for _, t in chosen], repeats, axis=0)
        return _block_scan(bits, cuts, self.codes, tables, units, sequential, refine, self.restart)


#: Encoders write 2 to 30.
_MOST_TABLES_AND_SCANS: Final = 256
#: Junk between a scan and the next marker that is put up with (some cameras write a few bytes).
_SPARE_BYTES: Final = 2
_FINE, _SHORT, _NO_CODE = 0, 1, 2
_PADDING: Final = 1024  # zero bytes behind the coded data: more than one block can take, so kernels check once a block


_SCAN_END: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")


def _coded_bits(body: bytes, at: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Coded data from byte `at` to the next marker but RST (T.81, B.1.1.5).

    Returns the bytes without stuffing and with padding, the bit at which each restart interval ends, and the
    position of that marker.
    """
    found = _SCAN_END.search(body, at)
    end = found.start() if found else len(body)
    parts = [part.replace(b"\xff\0", b"\xff") for part in _RESTART.split(body[at:end])]
    cuts = 8 * np.cumsum([len(part) for part in parts])
    return np.frombuffer(b"".join([*parts, bytes(_PADDING)]), np.uint8), cuts, end


@numba.njit(cache=True, nogil=True, inline="always")
def _peek(bits: np.ndarray, at: int) -> int:
    """The 16 bits from bit `at`."""
    byte = at >> 3
    word = (int(bits[byte]) << 16) | (int(bits[byte + 1]) << 8) | int(bits[byte + 2])
    return (word >> (8 - (at & 7))) & 0xFFFF


@numba.njit(cache=True, nogil=True)
def _block_scan(
    bits: np.ndarray,
    cuts: np.ndarray,
    codes: np.ndarray,
    tables: np.ndarray,
    units: int,
    sequential: bool,
    refine: bool,
    restart: int,
) -> tuple[int, int]:
    """Reads every code of a sequential or DC scan (T.81, F.2.2, G.1.2.1). (fault, most bytes left over)."""
    at, spare, cut = 0, 0, 0
    for unit in range(units):
        if restart and unit and unit % restart == 0:
            spare = max(spare, (cuts[cut] - at) >> 3)
            at = cuts[cut]
            cut += 1
            if cut == cuts.size:
                return _SHORT, spare
        for block in range(tables.shape[0]):
            if refine:
                at += 1
                continue
            code = codes[tables[block, 0], _peek(bits, at)]
            at += (code >> 8) + (code & 255)
            bad = code == 0 or (code & 255) > 11
            k = 1
            while sequential and k < 64 and not bad:
                code = codes[tables[block, 1], _peek(bits, at)]
                size = code & 15
                at += (code >> 8) + size
                bad = code == 0 or size > 10
                if size == 0 and (code & 255) != 0xF0:
                    break
                k += ((code >> 4) & 15) + 1
            if at > cuts[cut]:
                return _SHORT, spare
            if bad or k > 64:
                return _NO_CODE, spare
    return (_FINE if cut == cuts.size - 1 else _NO_CODE), max(spare, (cuts[cut] - at) >> 3)


@numba.njit(cache=True, nogil=True)
def _ac_scan(
    bits: np.ndarray,
    cuts: np.ndarray,
    codes: np.ndarray,
    nonzero: np.ndarray,
    first: int,
    last: int,
    refine: bool,
    restart: int,
) -> tuple[int, int]:
    """The same for one progressive AC scan (T.81, G.1.2.2 and G.1.2.3); marks new coefficients in `nonzero`."""
    at, spare, cut, run = 0, 0, 0, 0
    for block in range(nonzero.size):
        if restart and block and block % restart == 0:
            spare = max(spare, (cuts[cut] - at) >> 3)
            at, run = cuts[cut], 0
            cut += 1
            if cut == cuts.size:
                return _SHORT, spare
        mask, k, bad = nonzero[block], first, False
        while run == 0 and k <= last:
            code = codes[_peek(bits, at)]
            zeros, size = (code >> 4) & 15, code & 15
            at += code >> 8
            bad = bad or code == 0 or (refine and size > 1) or size > 10
            if size == 0 and zeros < 15:
                run = (1 << zeros) + (_peek(bits, at) >> (16 - zeros))
                at += zeros
                break
            at += size
            while k <= last:  # in a refinement, coefficients known to differ from zero take a bit and count not
                if refine and (mask >> np.uint64(k)) & np.uint64(1):
                    at += 1
                elif zeros == 0:
                    break
                else:
                    zeros -= 1
                k += 1
            if size:
                bad = bad or k > last
                mask |= np.uint64(1) << np.uint64(k & 63)
            k += 1
            if bad:
                break
        if run:
            run -= 1
            while refine and k <= last:
                at += int((mask >> np.uint64(k)) & np.uint64(1))
                k += 1
        nonzero[block] = mask
        if at > cuts[cut]:
            return _SHORT, spare
        if bad:
            return _NO_CODE, spare
    return (_FINE if cut == cuts.size - 1 and run == 0 else _NO_CODE), max(spare, (cuts[cut] - at) >> 3)


def check_scans(body: bytes) -> None:
    """Raises `Refused` unless every scan of a JPEG can be read to its last block and none is missing."""
    scans, at = _Scans(), 2
    while True:
        marker, start, at = _segment(body, at)
        if marker == _EOI:
            break
        if marker in _FRAMES:
            scans.start(_frame(marker, body[start:at]))
        elif marker == _DHT:
            scans.define(body[start:at])
        elif marker == _DRI:
            scans.restart = int.from_bytes(body[start : start + 2], "big")
        elif marker == _SOS:
            at = scans.scan(body[start:at], body, at)
    if scans.frame is None or not scans.precise[: len(scans.frame.components)].all():
        raise Refused(Reason.TRUNCATED, "jpeg: scans are missing")


def _judge(faults: tuple[int, int], end: int) -> None:
    status, spare = faults
    if status == _SHORT:
        raise Refused(Reason.TRUNCATED, f"jpeg: coded data end at byte {end}, before the picture does")
    if status == _NO_CODE:
        raise Refused(Reason.CORRUPT, f"jpeg: no valid code in the data before byte {end}")
    if spare > _SPARE_BYTES:
        raise Refused(Reason.CORRUPT, f"jpeg: {spare} bytes too many before byte {end}")
