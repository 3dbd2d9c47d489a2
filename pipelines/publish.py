"""Publishing: a set and its card, to where others read it; or its links and scores alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from curation import ledger
from pipelines import claims
from pipelines.card import About, card
from shards import parquet
from shards import publish as shards_publish
from shards.manifest import Manifest, read_manifest
from shards.publish import Published
from shards.store import Store
from shards.transfer import How


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishJob:
    """From where to where. `contact`: whom the card names for removals, may be empty."""

    source: Store
    target: Store
    contact: str = ""
    metadata_only: bool = False
    replace: bool = False  # also where the target has another set


def publish(job: PublishJob, how: How) -> Published:
    """Sends what the target lacks, the manifest last. Raises ValueError (`shards.publish.publish`)."""

    def described(published: Manifest) -> bytes:
        return card(published, _about(job))

    if job.metadata_only:
        return shards_publish.publish_metadata(job.source, job.target, described, how)
    return shards_publish.publish(job.source, job.target, described, how, job.replace)


def _about(job: PublishJob) -> About:
    funnel = ledger.funnel(job.source)
    claimed = bool(funnel) and job.source.exists(claims.CLAIM)
    return About(
        licences=_licences(job.source),
        funnel=funnel,
        thresholds=claims.recipe(job.source).thresholds if claimed else None,
        weights=claims.weights(job.source) if claimed else {},
        contact=" ".join(job.contact.split()),
        pictures=not job.metadata_only,
    )


def _licences(source: Store) -> Counter[str | None]:
    counts: Counter[str | None] = Counter()
    for table in parquet.read(source, read_manifest(source).metadata, ["license"]):
        counts.update(table["license"].to_pylist())
    return counts
