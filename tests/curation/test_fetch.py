"""Downloading from a server that misbehaves: each fault has its own reason, and the call ends on time."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curation.fetch import FetchSettings, ResolverDown, fetch
from curation.records import Fetched, Link, Reason, Stage, url_key
from jobs.hostile_server import PIXEL, HttpServer

LOOPBACK = frozenset({"127.0.0.1"})
ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """The first call imports img2dataset, 4 s that would count against the first test's clock."""
    list(fetch(links_to(["http://127.0.0.1/"]), FetchSettings()))


def settings(**changes: Any) -> FetchSettings:
    hasty: dict[str, Any] = {
        "allowed_addresses": LOOPBACK,
        "connect_timeout": 2.0,
        "read_timeout": 0.5,
        "deadline": 1.5,
        "max_bytes": 1 << 20,
        "backoff": 0.05,
        "threads": 16,
    }
    return FetchSettings(**{**hasty, **changes})


def links_to(urls: Sequence[str]) -> list[Link]:
    return [Link(position=i, key=url_key(url), url=url, source="test") for i, url in enumerate(urls)]


def fetch_all(urls: Sequence[str], chosen: FetchSettings) -> list[Fetched]:
    """In the order of `urls`; asserts that each came back exactly once."""
    came = list(fetch(links_to(urls), chosen))
    assert sorted(f.key for f in came) == sorted(url_key(url) for url in urls)
    assert all((f.body is None) != (f.refusal is None) for f in came)
    return sorted(came, key=lambda f: [url_key(url) for url in urls].index(f.key))


def fetch_one(url: str, chosen: FetchSettings) -> Fetched:
    return fetch_all([url], chosen)[0]


def reason_of(fetched: Fetched) -> Reason | None:
    if fetched.refusal is None:
        return None
    assert fetched.refusal.stage is Stage.FETCH
    assert fetched.refusal.detail
    return fetched.refusal.reason


FAULTS = {
    "/404/a.jpg": (Reason.HTTP_NOT_FOUND, 1),
    "/410/a.jpg": (Reason.HTTP_NOT_FOUND, 1),
    "/401/a.jpg": (Reason.HTTP_FORBIDDEN, 1),
    "/403/a.jpg": (Reason.HTTP_FORBIDDEN, 1),
    "/451/a.jpg": (Reason.HTTP_FORBIDDEN, 1),
    "/418/a.jpg": (Reason.HTTP_CLIENT_ERROR, 1),
    "/500/a.jpg": (Reason.HTTP_SERVER_ERROR, 3),
    "/206/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/304/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/garbage/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/redirect-private/a.jpg": (Reason.PRIVATE_ADDRESS, 1),
    "/redirect-loop/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/redirect-file/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/redirect-nowhere/a.jpg": (Reason.HTTP_PROTOCOL_ERROR, 1),
    "/redirect-robots/a.jpg": (Reason.OPTED_OUT, 1),
    "/noai/a.jpg": (Reason.OPTED_OUT, 1),
    "/reset/a.jpg": (Reason.CONNECTION_RESET, 3),
    "/hang-up/a.jpg": (Reason.CONNECTION_RESET, 3),
    "/never/a.jpg": (Reason.TIMED_OUT, 3),
    "/drip/a.jpg": (Reason.TOO_SLOW, 1),
    "/drip-headers/a.jpg": (Reason.TOO_SLOW, 1),
    "/truncated/a.jpg": (Reason.BODY_TRUNCATED, 3),
    "/truncated-chunks/a.jpg": (Reason.BODY_TRUNCATED, 3),
    "/oversize/a.jpg": (Reason.BODY_TOO_LARGE, 1),
    "/oversize-unannounced/a.jpg": (Reason.BODY_TOO_LARGE, 1),
    "/empty/a.jpg": (Reason.BODY_EMPTY, 1),
}
PICTURES = {
    "/pixel/a.png": 1,
    "/wrong-type/a.png": 1,
    "/chunked/a.png": 1,
    "/until-close/a.png": 1,
    "/redirect-good/a.png": 1,
    "/500-once/a.png": 2,
    "/rate-limited-once/a.png": 2,
}


def test_each_fault_ends_in_its_own_reason_and_on_time(server: HttpServer) -> None:
    paths = [*FAULTS, *PICTURES]
    began = time.monotonic()
    came = dict(zip(paths, fetch_all([server.url(path) for path in paths], settings(host_strikes=99)), strict=True))
    assert time.monotonic() - began < 10
    assert {path: reason_of(came[path]) for path in FAULTS} == {path: r for path, (r, _) in FAULTS.items()}
    assert {path: came[path].body for path in PICTURES} == dict.fromkeys(PICTURES, PIXEL)
    tries = {path: n for path, (_, n) in FAULTS.items() if path != "/never/a.jpg"} | PICTURES
    assert {path: came[path].attempts for path in tries} == tries
    assert 1 < came["/never/a.jpg"].attempts <= 3  # as many time-outs as its deadline has room for
    assert all(f.seconds < 1.5 + 0.5 for f in came.values())


def test_html_named_jpg_is_handed_on_for_decoding_to_refuse(server: HttpServer) -> None:
    fetched = fetch_one(server.url("/html/picture.jpg"), settings())
    assert fetched.body is not None and fetched.body.startswith(b"<!DOCTYPE html>")


def test_retry_after_is_waited_for_and_its_host_left_alone(server: HttpServer) -> None:
    urls = [server.url("/rate-limited-once/a.png"), *(server.url(f"/pixel/{i}") for i in range(8))]
    began = time.monotonic()
    came = fetch_all(urls, settings(threads=1))
    assert all(f.body == PIXEL for f in came)
    assert time.monotonic() - began >= 1.0
    assert came[0].attempts == 2


def test_a_pause_longer_than_the_cap_ends_the_hosts_links_without_asking(server: HttpServer) -> None:
    urls = [server.url("/rate-limited-for-an-hour/a.png"), *(server.url(f"/pixel/{i}") for i in range(20))]
    began = time.monotonic()
    came = fetch_all(urls, settings(threads=1))
    assert time.monotonic() - began < 3
    assert {reason_of(f) for f in came} == {Reason.HTTP_RATE_LIMITED}
    assert sum(server.requests.values()) == 1
    assert [f.attempts for f in came] == [1] + [0] * 20


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        ("noai", True),
        ("NoImageAI", True),
        ("noindex, nofollow", True),
        ("million-ird: noml", True),
        ("max-image-preview: large, noai", True),
        ("otherbot: noai", False),
        ("nofollow", False),
        ("max-image-preview: none", False),
    ],
)
def test_opt_outs_addressed_to_all_or_to_this_robot_are_honoured(
    server: HttpServer, header: str, refused: bool
) -> None:
    url = server.add("/picture.png", PIXEL, X_Robots_Tag=header)
    assert reason_of(fetch_one(url, settings())) == (Reason.OPTED_OUT if refused else None)


def test_says_who_it_is_and_sends_no_login(server: HttpServer) -> None:
    url = server.url("/pixel/ä b.png?q=ü#part").replace("http://", "http://user:word@")
    assert fetch_one(url, settings()).body == PIXEL
    headers = server.headers["/pixel/%C3%A4%20b.png?q=%C3%BC"]
    assert headers["User-Agent"] == "million-ird/0.1"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert "Authorization" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_after_dns_whatever_their_spelling(server: HttpServer, host: str) -> None:
    fetched = fetch_one(server.url("/pixel", host=host), settings(allowed_addresses=frozenset()))
    assert reason_of(fetched) is Reason.PRIVATE_ADDRESS
    assert not server.requests


def test_a_redirect_to_another_private_address_is_refused_unless_all_are_allowed() -> None:
    with HttpServer() as server, HttpServer(address="127.0.0.2") as inner:
        server.private_target = inner.url("/pixel/secret.png")
        url = server.url("/redirect-private")
        assert reason_of(fetch_one(url, settings())) is Reason.PRIVATE_ADDRESS
        assert not inner.requests
        assert fetch_one(url, settings(allow_private_hosts=True)).body == PIXEL


def test_names_without_an_address_come_last_and_as_such(server: HttpServer) -> None:
    urls = ["http://no-such-host.invalid/a.jpg", server.url("/pixel/a.png"), "http://a..b/", "http://127.0.0.1:x/"]
    came = list(fetch(links_to(urls), settings()))
    assert came[-1].key == url_key(urls[0])
    by_url = {url: next(f for f in came if f.key == url_key(url)) for url in urls}
    assert reason_of(by_url[urls[0]]) in {Reason.DNS_UNKNOWN_HOST, Reason.DNS_NO_ANSWER}
    assert [reason_of(by_url[url]) for url in urls[2:]] == [Reason.URL_MALFORMED] * 2


def test_a_dead_resolver_stops_the_call_instead_of_burning_the_list(server: HttpServer) -> None:
    urls = [f"http://host-{i}.invalid/a.jpg" for i in range(6)] + [server.url("/pixel/a.png")]
    came = []
    with pytest.raises(ResolverDown, match="none of 7 host names"):  # the probe's among them
        for fetched in fetch(links_to(urls), settings(resolver_probe="nobody.invalid")):
            came.append(fetched)
    assert [f.body for f in came] == [PIXEL]


def test_a_resolver_that_knows_the_probe_is_not_blamed() -> None:
    urls = [f"http://host-{i}.invalid/a.jpg" for i in range(6)]
    assert len(fetch_all(urls, settings(resolver_probe="127.0.0.1"))) == 6


def test_a_port_where_nobody_listens_is_connect_failed() -> None:
    with HttpServer() as gone:
        url = gone.url("/pixel")
    fetched = fetch_one(url, settings())
    assert (reason_of(fetched), fetched.attempts) == (Reason.CONNECT_FAILED, 3)


@pytest.mark.slow
def test_a_host_that_never_answers_leaves_the_others_their_threads(server: HttpServer) -> None:
    """500 of 1000 URLs are of a black hole: with 16 threads that alone would be 500 x 0.5 s / 16 = 16 s."""
    with HttpServer(address="127.0.0.2") as hole:
        urls = [hole.url(f"/never/{i}") for i in range(500)] + [server.url(f"/pixel/{i}") for i in range(500)]
        began = time.monotonic()
        chosen = settings(allow_private_hosts=True)
        came = fetch_all(urls, chosen)
        assert time.monotonic() - began < 15
        assert sum(f.body == PIXEL for f in came) == 500
        assert {reason_of(f) for f in came if f.body is None} == {Reason.TIMED_OUT}
        assert sum(hole.requests.values()) <= chosen.host_strikes * chosen.per_host + chosen.per_host
        assert hole.most_at_once <= chosen.per_host


def test_never_more_at_once_than_the_cap_per_host(server: HttpServer) -> None:
    server.pause = 0.05
    fetch_all([server.url(f"/pixel/{i}") for i in range(40)], settings(per_host=3))
    assert server.most_at_once == 3


def _count_pictures(urls: list[str], together: Any, counts: Any) -> None:
    together.wait()
    came = fetch_all(urls, FetchSettings(allowed_addresses=LOOPBACK, per_host=3, threads=16))
    counts.put(sum(fetched.body == PIXEL for fetched in came))


@pytest.mark.slow
def test_the_cap_per_host_holds_over_processes_and_a_killed_one_frees_its_slots(server: HttpServer) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["img2dataset.downloader", "img2dataset.resizer"])
    alone, together, counts = processes.Barrier(1), processes.Barrier(3), processes.Queue()
    never = [server.url(f"/never/{i}") for i in range(9)]
    doomed = processes.Process(target=_count_pictures, args=(never, alone, counts))
    doomed.start()
    _wait_until(lambda: server.now == 3)
    doomed.kill()
    doomed.join()
    _wait_until(lambda: server.now == 0)

    server.pause = 0.1
    for name in "abc":
        urls = [server.url(f"/pixel/{name}{i}") for i in range(20)]
        processes.Process(target=_count_pictures, args=(urls, together, counts), daemon=True).start()
    assert [counts.get(timeout=60) for _ in range(3)] == [20] * 3
    assert server.most_at_once == 3


def _wait_until(is_so: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_caller_sets_the_pace_and_a_chunk_is_never_held_as_a_whole(server: HttpServer) -> None:
    chosen = settings(threads=4, per_host=4)
    results = fetch(links_to([server.url(f"/pixel/{i}") for i in range(200)]), chosen)
    next(results)
    time.sleep(1)
    # 2 x threads in img2dataset, 8 in the queue, one in each of the four hands on the way
    assert len(server.requests) <= 2 * 4 + 8 + 4
    assert len(list(results)) == 199


def test_an_iterator_closed_early_leaves_nothing_behind(server: HttpServer) -> None:
    threads = threading.active_count()
    results = fetch(links_to([server.url(f"/pixel/{i}") for i in range(200)]), settings())
    next(results)
    results.close()  # type: ignore[attr-defined]
    asked = sum(server.requests.values())
    assert asked < 200
    _wait_until(lambda: not [t for t in threading.enumerate() if t.name == "img2dataset"], 5)
    _wait_until(lambda: threading.active_count() <= threads + 2, 5)
    assert fsspec.filesystem("memory").find("/million-ird") == []
    assert len(fetch_all([server.url(f"/pixel/{i}") for i in range(20)], settings())) == 20


def test_an_error_of_our_own_is_raised_and_not_written_down_as_the_links(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors: img2dataset would print it and count the URL as failed."""

    def out_of_descriptors(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    urls = [server.url(f"/pixel/{i}") for i in range(50)]
    with monkeypatch.context() as patch:
        patch.setattr("curation.transport.socket.create_connection", out_of_descriptors)
        with pytest.raises(OSError, match="Too many open files"):
            list(fetch(links_to(urls), settings()))
    assert len(fetch_all(urls, settings())) == 50  # and the slots are free again


def test_is_quiet_and_leaves_img2dataset_as_it_was(server: HttpServer, capfd: pytest.CaptureFixture[str]) -> None:
    from img2dataset import downloader

    before = dict(vars(downloader))
    fetch_all([server.url("/pixel"), server.url("/404"), server.url("/reset")], settings())
    assert capfd.readouterr() == ("", "")
    assert dict(vars(downloader)) == before


def test_nothing_to_fetch_is_nothing() -> None:
    assert list(fetch([], settings())) == []


@pytest.mark.parametrize(
    "wrong",
    [{"threads": 0}, {"deadline": 0.0}, {"per_host": -1}, {"backoff": -1.0}, {"user_agent": "a\r\nb"}],
)
def test_settings_that_cannot_work_are_refused_with_a_remedy(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: give "):
        FetchSettings(**wrong)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the shared photographs are not beside this checkout")
def test_photographs_arrive_byte_for_byte() -> None:
    names = sorted(p.name for p in PHOTOS.iterdir() if p.suffix != ".tsv")[:12]
    with HttpServer(PHOTOS) as server:
        came = fetch_all([server.url(f"/files/{name}") for name in names], settings(deadline=30, max_bytes=1 << 26))
    assert [f.body for f in came] == [(PHOTOS / name).read_bytes() for name in names]
