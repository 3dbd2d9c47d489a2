"""Pictures' facts: decode, hash, score. What the ledger then stores is all that a verdict needs.

Cheapest first, and no further than a picture stands: the header's promises, flatness, the metrics in the recipe's
order, and at the end, for those of a batch that still stand, the metrics that want many pictures at once. One vote
against is enough to reject a picture, so what is kept does not depend on how many were cast. (NIMA's score does
depend on the pictures in its batch, by under 1e-4, and with it the verdict on a picture that close to its bound.)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from curation.decode import decode
from curation.duplicates import perceptual_hash
from curation.judge import JPEG_QUALITY, Thresholds, is_unscored, judge, missing, quality, size
from curation.records import Header, Picture, Reason, Refusal, Row
from curation.scorers.panel import Panel, Reduced
from curation.scorers.protocol import Scored, Stands, always


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What pictures are measured against, and how far."""

    thresholds: Thresholds
    max_pixels: int  # above: refused from the header, before any memory is taken
    cascade: bool  # no further than a picture stands; else every metric of every picture

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(threshold.metric for threshold in self.thresholds.metrics)

    @property
    def stands(self) -> Stands:
        """Whether a picture with this score by this metric is to be scored on."""
        return self._may_be_kept if self.cascade else always

    def is_open(self, row: Row) -> bool:
        """Whether a row measured by some of the metrics is to be measured by the others."""
        if self.cascade or row.reason is not Reason.LOW_QUALITY:
            return is_unscored(row)
        return bool(missing(row, self.thresholds))

    def _may_be_kept(self, metric: str, score: float) -> bool:
        return quality(self.thresholds, {metric: score}) is None


def refused(row: Row, refusal: Refusal) -> Row:
    """The row, ended there."""
    return replace(row, reason=refusal.reason, stage=refusal.stage, detail=refusal.detail)


def promised(row: Row, header: Header, thresholds: Thresholds) -> Row:
    """The row with what a picture's header says of it, and nothing of what an earlier try saw."""
    told = _told(header.jpeg_quality, thresholds)
    return replace(_unseen(row), width=header.width, height=header.height, format=header.format, scores=told)


def measure(rows: Sequence[Row], bodies: Sequence[bytes], panel: Panel, scale: Scale) -> list[Row]:
    """Each row with everything that its body says, and the verdict on it.

    Scores that a row already has of these very bytes are not computed again. A picture that passes ends as
    NOT_STORED: keeping its bytes is the caller's part. One that is too small is not scored; it can't be kept
    whatever its scores are, and scoring is what costs. Decoded pictures are held one at a time.
    """
    begun = [_timed(row, body, panel, scale) for row, body in zip(rows, bodies, strict=True)]
    waiting = [one for one in begun if one.reduced is not None]
    started = time.perf_counter()
    scored = panel.score_reduced([one.reduced for one in waiting if one.reduced is not None])
    share = (time.perf_counter() - started) / max(1, len(waiting))
    for one, late in zip(waiting, scored, strict=True):
        one.row = replace(_scored(one.row, late, scale.thresholds), seconds=one.row.seconds + share)
    return [one.row for one in begun]


@dataclass(slots=True)
class _Begun:
    """A row on its way; `reduced` is set where metrics that work in batches are still to come."""

    row: Row
    reduced: Reduced | None = None


def _timed(row: Row, body: bytes, panel: Panel, scale: Scale) -> _Begun:
    started = time.perf_counter()
    digest = hashlib.sha256(body).hexdigest()
    known = row if row.sha256 == digest else _unseen(row)
    begun = _begin(replace(known, bytes=len(body), sha256=digest), body, panel, scale)
    begun.row = replace(begun.row, seconds=row.seconds + time.perf_counter() - started)
    return begun


def _unseen(row: Row) -> Row:
    """The row without the facts of another picture, which its URL gave before."""
    return replace(row, width=None, height=None, bytes=None, format=None, sha256=None, phash=None, scores={})


def _begin(row: Row, body: bytes, panel: Panel, scale: Scale) -> _Begun:
    picture = decode(body, scale.max_pixels)
    if isinstance(picture, Refusal):
        return _Begun(refused(row, picture))
    seen = _described(row, picture, scale.thresholds)
    too_small = size(scale.thresholds, picture.width, picture.height)
    if too_small is not None:
        return _Begun(refused(seen, too_small))
    if not all(scale.stands(metric, score) for metric, score in seen.scores.items()):
        return _Begun(judge(seen, scale.thresholds))
    missing = [metric for metric in scale.metrics if metric not in seen.scores]
    wanted = panel.one_by_one(missing)
    scored = panel.score(picture.pixels, wanted, scale.stands)
    seen = _scored(seen, scored, scale.thresholds)
    if scored.refusal is not None or not all(scale.stands(*one) for one in scored.scores.items()):
        return _Begun(seen)
    return _Begun(seen, panel.reduced(picture.pixels, missing))


def _scored(row: Row, scored: Scored, thresholds: Thresholds) -> Row:
    seen = replace(row, scores=row.scores | scored.scores)
    return judge(seen, thresholds) if scored.refusal is None else refused(seen, scored.refusal)


def _described(row: Row, picture: Picture, thresholds: Thresholds) -> Row:
    return replace(
        row,
        width=picture.width,
        height=picture.height,
        format=picture.format,
        phash=perceptual_hash(picture.pixels),
        scores=row.scores | _told(picture.jpeg_quality, thresholds),
    )


def _told(jpeg_quality: float, thresholds: Thresholds) -> dict[str, float]:
    """The scores that a header gives, those that vote."""
    votes = any(threshold.metric == JPEG_QUALITY for threshold in thresholds.metrics)
    return {JPEG_QUALITY: jpeg_quality} if votes else {}
