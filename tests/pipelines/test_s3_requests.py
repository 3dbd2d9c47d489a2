"""What a run asks of S3, counted on an S3 server, is what was told beforehand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.forecast import exactly
from jobs import filter_laion
from jobs.hostile_server import HttpServer
from jobs.s3_proxy import S3Proxy
from pipelines.s3_requests import GETS_A_CHUNK, PART, PUTS_A_CHUNK, requests
from shards.store import open_store
from tests.conftest import S3Server
from tests.pipelines.conftest import SIDE, encoded, texture

BOUNDS = ("--metrics", "niqe,brisque", "--threshold", "niqe=30", "--threshold", "brisque=200")


def kinds(asked: list[str]) -> Counter[str]:
    """How many of each kind, as they are billed."""
    return Counter("list" if "list-type" in one else one.split()[0].lower() for one in asked)


def counted(server: S3Server, web: HttpServer, prior: Path, folder: Path, chunks: int) -> Counter[str]:
    """The requests of a whole run of so many chunks, each with one picture that is kept."""
    urls = []
    for number in range(chunks):
        urls += [web.add(f"/{number}.jpg", encoded(texture(number)), "image/jpeg"), web.url(f"/404/{number}")]
    pq.write_table(pa.table({"URL": urls}), folder / f"{chunks}.parquet")
    root = server.bucket(f"counted-{chunks}")
    with S3Proxy(server.endpoint_url) as proxy:
        words = ["--urls", folder / f"{chunks}.parquet", "--out", root, "--endpoint-url", proxy.endpoint_url]
        words += ["--chunk-size", 2, "--min-res", SIDE, "--weights", prior, "--allow-private-hosts", *BOUNDS]
        assert filter_laion.main([str(word) for word in words]) == 0
        asked = list(proxy.requests)
    assert len(list(open_store(root, server.endpoint_url).list("ledger/"))) == chunks
    return kinds(asked)


@pytest.mark.slow
@pytest.mark.endurance
def test_requests_are_as_many_as_told(local_ray: None, s3_server: S3Server, prior: Path, tmp_path: Path) -> None:
    """By how many more a longer list takes: what a run asks once, whatever its length, is left out."""
    with HttpServer() as web:
        few = counted(s3_server, web, prior, tmp_path, 3)
        more = counted(s3_server, web, prior, tmp_path, 9)
    print(few, more)
    a_chunk = {kind: (more[kind] - few[kind]) / 6 for kind in ("put", "get", "head")}
    assert a_chunk["put"] == pytest.approx(PUTS_A_CHUNK, abs=1.0), a_chunk
    assert a_chunk["get"] + a_chunk["head"] == pytest.approx(GETS_A_CHUNK, rel=0.15), a_chunk


def test_large_objects_go_in_parts() -> None:
    """100 chunks with originals of 20 MB and patches of 10 MB, in 2 shards of 500 MB."""
    kept, cut = exactly(100 * 20e6), exactly(100 * 10e6)
    found = requests(chunks=100, shards=exactly(2), bytes_kept=kept, bytes_shards=cut)
    in_parts = 100 * (3 + 1) + 100 * (2 + 1) + 1e9 / PART
    assert found.put.mid == pytest.approx(PUTS_A_CHUNK * 100 + in_parts + 2, rel=0.01)
    small = requests(chunks=100, shards=exactly(1), bytes_kept=exactly(1e6), bytes_shards=exactly(1e6))
    assert small.put.mid == pytest.approx(PUTS_A_CHUNK * 100 + 1, rel=0.01)


def test_a_longer_list_asks_for_more_pages() -> None:
    one, many = (
        requests(chunks=chunks, shards=exactly(0), bytes_kept=exactly(0), bytes_shards=exactly(0))
        for chunks in (1000, 170_000)
    )
    assert many.list.mid == 170 * one.list.mid and many.get.mid == 170 * one.get.mid
