"""One picture's facts: decode it, hash it, score it. What the ledger then stores is all that a verdict needs."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

from curation.decode import decode
from curation.duplicates import perceptual_hash
from curation.judge import Thresholds, judge, size
from curation.records import Picture, Refusal, Row
from curation.scorers.protocol import Scorer


def refused(row: Row, refusal: Refusal) -> Row:
    """The row, ended there."""
    return replace(row, reason=refusal.reason, stage=refusal.stage, detail=refusal.detail)


def measure(row: Row, body: bytes, scorer: Scorer, thresholds: Thresholds, max_pixels: int) -> Row:
    """The row with everything that `body` says, and the verdict on it.

    A picture that passes ends as NOT_STORED: keeping its bytes is the caller's part. One that is too small is
    not scored; it can't be kept whatever its scores are, and scoring is what costs.
    """
    started = time.perf_counter()
    measured = _measure(
        replace(row, bytes=len(body), sha256=hashlib.sha256(body).hexdigest()),
        body,
        scorer,
        thresholds,
        max_pixels,
    )
    return replace(measured, seconds=row.seconds + time.perf_counter() - started)


def _measure(row: Row, body: bytes, scorer: Scorer, thresholds: Thresholds, max_pixels: int) -> Row:
    picture = decode(body, max_pixels)
    if isinstance(picture, Refusal):
        return refused(row, picture)
    seen = _described(row, picture)
    too_small = size(thresholds, picture.width, picture.height)
    if too_small is not None:
        return refused(seen, too_small)
    scored = scorer.score(picture.pixels)
    seen = replace(seen, scores=scored.scores)
    return judge(seen, thresholds) if scored.refusal is None else refused(seen, scored.refusal)


def _described(row: Row, picture: Picture) -> Row:
    return replace(
        row,
        width=picture.width,
        height=picture.height,
        format=picture.format,
        phash=perceptual_hash(picture.pixels),
    )
