"""One request: the address that was checked is the one reached, names over TLS, the limits, the clock."""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from curation import glance
from curation.fetch_settings import FetchSettings
from curation.glance import LOOKS, unseen
from curation.hosts import Resolver
from curation.records import Reason, Refusal, Seen, Stage
from curation.transport import Answer, Transport, parse_target
from jobs.hostile_server import PIXEL, HttpServer

Look = Callable[..., list[Any]]


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


def get(url: str, seconds: float = 3.0, look: glance.Look = unseen, **changes: Any) -> Answer:
    given: dict[str, Any] = {"allowed_addresses": frozenset({"127.0.0.1"}), "connect_timeout": 1.0, **changes}
    resolver = Resolver(4)
    try:
        return Transport(FetchSettings(**given), resolver, lambda *_: False, look).get(url, seconds)
    finally:
        resolver.close()


def reason_of(answer: Answer) -> Reason | None:
    return None if answer.refusal is None else answer.refusal.reason


def resolve_with(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str] | OSError]]) -> None:
    """Has the C resolver answer for the names in `answers`, each with the next of its list of addresses."""
    real: Look = socket.getaddrinfo

    def look_up(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        answer = answers[host].pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_name_that_answers_differently_the_second_time_gains_nothing(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpServer(address="127.0.0.2", port=server.server_port) as inner:
        resolve_with(monkeypatch, {"rebind.test": [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]})
        answer = get(server.url("/pixel", host="rebind.test"))
        assert answer.body is not None and answer.body.getvalue() == PIXEL
        assert server.headers["/pixel"]["Host"] == f"rebind.test:{server.server_port}"
        assert not inner.requests


def test_one_private_address_among_several_refuses_the_name(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_with(monkeypatch, {"both.test": [["127.0.0.1", "10.0.0.1"]]})
    assert reason_of(get(server.url("/pixel", host="both.test"))) is Reason.PRIVATE_ADDRESS
    assert not server.requests


def test_the_next_address_is_tried_where_the_first_refuses(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, {"two.test": [["127.0.0.9", "127.0.0.1"]]})
    assert reason_of(get(server.url("/pixel", host="two.test"), allow_private_hosts=True)) is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (socket.EAI_NONAME, Reason.DNS_UNKNOWN_HOST),
        (socket.EAI_AGAIN, Reason.DNS_NO_ANSWER),
        (socket.EAI_FAIL, Reason.DNS_NO_ANSWER),
    ],
)
def test_no_such_name_and_no_answer_are_told_apart(monkeypatch: pytest.MonkeyPatch, code: int, reason: Reason) -> None:
    resolve_with(monkeypatch, {"odd.test": [socket.gaierror(code, "as the C library says it")]})
    assert reason_of(get("http://odd.test/")) is reason


def test_a_resolver_that_hangs_costs_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    began = time.monotonic()
    assert reason_of(get("http://slow.test/", connect_timeout=0.3)) is Reason.DNS_NO_ANSWER
    assert time.monotonic() - began < 1.5


def test_the_clock_covers_headers_that_drip(server: HttpServer) -> None:
    began = time.monotonic()
    answer = get(server.url("/drip-headers"), seconds=0.7, read_timeout=0.5)
    assert reason_of(answer) is Reason.TOO_SLOW
    assert time.monotonic() - began < 1.2


def test_a_listener_that_never_accepts_is_timed_out() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        assert reason_of(get(url, read_timeout=0.3)) is Reason.TIMED_OUT


def test_an_announced_oversize_body_is_refused_before_it_is_read(server: HttpServer) -> None:
    url = server.add("/large.png", b"x" * 5_000_000)
    answer = get(url, max_bytes=1000)
    assert reason_of(answer) is Reason.BODY_TOO_LARGE
    assert answer.refusal is not None and answer.refusal.detail == "5000000 bytes declared, 1000 allowed"


def test_a_body_whose_start_is_refused_is_not_read_on(server: HttpServer) -> None:
    url = server.add("/large.bin", bytes(3_000_000))
    seen: list[int] = []

    def look(start: bytes) -> Seen | None:
        seen.append(len(start))
        refusal = Refusal(reason=Reason.TOO_SMALL, stage=Stage.JUDGE, detail="as the test wants it")
        return Seen(refusal=refusal) if len(start) >= LOOKS[1] else None

    answer = get(url, look=look)
    assert (reason_of(answer), answer.body) == (Reason.TOO_SMALL, None)
    assert seen == list(LOOKS[:2])
    assert LOOKS[1] < answer.bytes_read < 2 * LOOKS[1]
    assert 3_000_000 < answer.bytes_spared + answer.bytes_read < 3_000_000 + 500  # HTTP's headers


@pytest.mark.parametrize("length", [LOOKS[0], LOOKS[0] + 2000])
def test_what_was_read_ahead_is_not_spared(server: HttpServer, length: int) -> None:
    refusal = Refusal(reason=Reason.TOO_SMALL, stage=Stage.JUDGE, detail="as the test wants it")
    answer = get(server.add("/small.bin", bytes(length)), look=lambda start: Seen(refusal=refusal))
    assert reason_of(answer) is Reason.TOO_SMALL
    assert length <= answer.bytes_read + answer.bytes_spared < length + 500  # HTTP's headers


def test_a_body_that_nothing_is_said_against_comes_whole(server: HttpServer) -> None:
    url = server.add("/large.bin", bytes(3_000_000))
    answer = get(url, look=lambda start: None)
    assert answer.body is not None and len(answer.body.getvalue()) == 3_000_000
    assert (answer.bytes_spared, answer.bytes_read > 3_000_000) == (0, True)


@pytest.mark.parametrize("fault", [ValueError, OSError, TimeoutError])
def test_a_look_that_fails_is_not_the_servers_fault(server: HttpServer, fault: type[Exception]) -> None:
    def look(start: bytes) -> Seen | None:
        raise fault("in here")

    with pytest.raises(RuntimeError, match=r"looking at a picture's first .* bytes failed: .*in here"):
        get(server.add("/large.bin", bytes(3_000_000)), look=look)


def test_bytes_count_for_a_body_that_never_ended_too(server: HttpServer) -> None:
    answer = get(server.url("/truncated/a"))
    assert reason_of(answer) is Reason.BODY_TRUNCATED
    assert answer.bytes_read > len(PIXEL)


def test_a_body_of_exactly_the_cap_passes(server: HttpServer) -> None:
    assert reason_of(get(server.url("/chunked"), max_bytes=len(PIXEL))) is None
    assert reason_of(get(server.url("/chunked"), max_bytes=len(PIXEL) - 1)) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_read_as_seconds_and_as_a_date(server: HttpServer, form: str) -> None:
    until = datetime.now(timezone.utc) + timedelta(seconds=20)
    value = "20" if form == "seconds" else email.utils.format_datetime(until, usegmt=True)
    server.answer_with("/busy", 503, {"Retry-After": value})
    answer = get(server.url("/busy"))
    assert reason_of(answer) is Reason.HTTP_SERVER_ERROR
    assert answer.pause is not None and 17 < answer.pause <= 20


def test_a_retry_after_that_says_nothing_is_none(server: HttpServer) -> None:
    server.answer_with("/busy", 429, {"Retry-After": "soon"})
    assert get(server.url("/busy")).pause is None


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b?x=1", "http://127.0.0.1:{port}/b?x=1"),
        ("c.png", "http://127.0.0.1:{port}/a/c.png"),
        ("//other.test/d", "http://other.test/d"),
        ("https://other.test/e f", "https://other.test/e f"),
    ],
)
def test_redirects_are_handed_back_absolute(server: HttpServer, location: str, target: str) -> None:
    server.answer_with("/a/b.png", 301, {"Location": location})
    assert get(server.url("/a/b.png")).location == target.format(port=server.server_port)


@pytest.mark.parametrize(
    "location", ["ftp://a.test/", "javascript:x", "data:image/png;base64,AA", "http://[::1/", "http://a b/"]
)
def test_a_redirect_to_what_is_not_http_is_refused(server: HttpServer, location: str) -> None:
    server.answer_with("/a.png", 302, {"Location": location})
    assert reason_of(get(server.url("/a.png"))) is Reason.HTTP_PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://EXAMPLE.com", "example.com", 80, "/"),
        ("https://user:word@example.com:8443/a b?c=d#e", "example.com", 8443, "/a%20b?c=d"),
        ("http://bücher.example/ü%20?q=ü", "xn--bcher-kva.example", 80, "/%C3%BC%20?q=%C3%BC"),
        ("http://[::1]:81/x", "::1", 81, "/x"),
        ("http://a_b.example/\r\nHost: evil", "a_b.example", 80, "/Host:%20evil"),
    ],
)
def test_urls_are_taken_apart(url: str, host: str, port: int, path: str) -> None:
    target = parse_target(url)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "url", ["", "a.jpg", "ftp://a.test/", "http:///a", "http://a..b/", "http://a:99999/", "http://[::1/"]
)
def test_what_is_no_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError):
        parse_target(url)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for `name`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


@pytest.fixture
def tls_server(tmp_path: Path, server: HttpServer) -> tuple[HttpServer, Path]:
    """`server` over TLS with a certificate for pictures.test; and that certificate."""
    cert, key = certificate(tmp_path, "pictures.test")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server, cert


def test_tls_is_verified_against_the_urls_name_while_the_checked_address_is_reached(
    tls_server: tuple[HttpServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, cert = tls_server
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    resolve_with(monkeypatch, {"pictures.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    good = get(server.url("/pixel", host="pictures.test").replace("http:", "https:"))
    assert good.body is not None and good.body.getvalue() == PIXEL
    other = get(server.url("/pixel", host="other.test").replace("http:", "https:"))
    assert reason_of(other) is Reason.TLS_FAILED


def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server: tuple[HttpServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_with(monkeypatch, {"pictures.test": [["127.0.0.1"]]})
    url = tls_server[0].url("/pixel", host="pictures.test").replace("http:", "https:")
    assert reason_of(get(url)) is Reason.TLS_FAILED


def test_https_to_a_port_that_speaks_http_fails_as_tls(server: HttpServer) -> None:
    assert reason_of(get(server.url("/pixel").replace("http:", "https:"))) is Reason.TLS_FAILED


def test_proxies_of_the_environment_are_not_used(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    assert reason_of(get(server.url("/pixel"))) is None
