"""One request for one URL: resolve, check the address, connect to that very address, read within limits.

img2dataset's own `download_image` hands the URL to `urllib.request`: no address check, no cap on bytes, a time-out
that starts anew with every byte, a claim to be Firefox. This takes its place. Redirects are not followed here but
handed back, so that each hop waits its turn at its own host and is checked anew.

* The address that was checked is the address connected to: a name that answers differently the second time (DNS
  rebinding) gains nothing. One private address among several refuses the name.
* Every wait is cut to what is left of the URL's deadline, a dripped header included.
* Proxies from the environment are not used: behind one, the address checked is not the address reached.
* A login in a URL (`http://user:word@host/`) is never sent: a list's passwords are not ours to use.
* The body is handed on as it came, whatever its Content-Type says (servers lie both ways): decoding decides.
* Its first kilobytes are shown to a `Look`; where that refuses, the connection is closed and the rest not read.
"""

from __future__ import annotations

import errno
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import certifi

from curation.addresses import is_public
from curation.fetch_settings import FetchSettings
from curation.glance import LOOKS, Look, unseen
from curation.hosts import NoAnswer, Resolver, UnknownHost
from curation.records import Header, Reason, Refusal, Seen, Stage

_PIECE: Final = 1 << 16  # bytes per read
_BUFFER: Final = 1 << 12  # bytes read ahead: what a refused header has cost beside its own
_MOST_ADDRESSES: Final = 3  # tried of one host
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(%[a-z0-9]+)?")
_PATH_AS_IS: Final = "%/:?#[]@!$&'()*+,;=~|"
#: Directives of X-Robots-Tag with a value after a colon, which img2dataset's parser takes for a robot's name.
_VALUED_DIRECTIVE: Final = re.compile(r"\bmax-(?:snippet|image-preview|video-preview)\s*:\s*[\w-]+\s*,?\s*", re.I)
_BY_STATUS: Final = {
    401: Reason.HTTP_FORBIDDEN,
    403: Reason.HTTP_FORBIDDEN,
    404: Reason.HTTP_NOT_FOUND,
    410: Reason.HTTP_NOT_FOUND,
    429: Reason.HTTP_RATE_LIMITED,
    451: Reason.HTTP_FORBIDDEN,
}
#: Shortages of this machine, not of the URL: raised, or they would be written down as the URL's fault.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one request brought: one of `body`, `location` and `refusal`."""

    body: io.BytesIO | None = None
    location: str | None = None  # where a redirect points, absolute
    refusal: Refusal | None = None
    header: Header | None = None  # the picture's, where that is what was refused
    bytes_read: int = 0  # off the wire, HTTP's headers included
    bytes_spared: int = 0  # of the declared length, never read, when the picture's header was refused
    pause: float | None = None  # seconds the server asks to be left alone for: its Retry-After


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A URL as a request needs it: `host` in lower-case ASCII, `path` percent-encoded with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the port only where it isn't the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


def parse_target(url: str) -> Target:
    """Takes a URL apart. Raises ValueError for what no request can be made of."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError(f"'{parts.scheme}' is neither http nor https")
    host = parts.hostname or ""
    if ":" not in host:
        host = host.encode("idna").decode("ascii").lower()
    if not _HOST.fullmatch(host):
        raise ValueError("no usable host")
    path = quote(parts.path or "/", safe=_PATH_AS_IS)
    if parts.query:
        path += "?" + quote(parts.query, safe=_PATH_AS_IS)
    return Target(scheme=parts.scheme, host=host, port=parts.port or _PORTS[parts.scheme], path=path)


class _Refused(Exception):
    """Ends a request; becomes its `Answer`."""

    def __init__(self, reason: Reason, detail: str, pause: float | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.pause = pause
        self.bytes_read = 0


class _Wire(io.RawIOBase):
    """The reading end of a socket, against the clock. Stands in for the socket that http.client asks for."""

    def __init__(self, sock: socket.socket, read_timeout: float, ends_at: float) -> None:
        super().__init__()
        self._sock = sock
        self._read_timeout = read_timeout
        self._ends_at = ends_at
        self.came = 0  # bytes so far

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(self, _BUFFER)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise self._out_of_time()
        self._sock.settimeout(min(self._read_timeout, left))
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError as late:
            if left <= self._read_timeout:
                raise self._out_of_time() from late
            raise _Refused(Reason.TIMED_OUT, f"no byte for {self._read_timeout:g} s") from late
        self.came += count
        return count

    def _out_of_time(self) -> _Refused:
        if self.came:
            return _Refused(Reason.TOO_SLOW, f"{self.came} bytes had come when the URL's time was up")
        return _Refused(Reason.TIMED_OUT, "no byte had come when the URL's time was up")


class Transport:
    """Makes requests, from many threads at once.

    `disallowed` is img2dataset's reading of X-Robots-Tag, `look` what is asked whether a body is worth reading on.
    """

    def __init__(
        self,
        settings: FetchSettings,
        resolver: Resolver,
        disallowed: Callable[[Message, str, frozenset[str]], bool],
        look: Look = unseen,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._disallowed = disallowed
        self._look = look
        self._opt_outs = frozenset(directive.strip().lower() for directive in settings.opt_outs)
        self._tls = ssl.create_default_context()  # the system's authorities, a company's own among them
        self._tls.load_verify_locations(certifi.where())  # slim images have none

    def get(self, url: str, seconds: float) -> Answer:
        """Asks for `url` once, within `seconds`. Whatever the outside world does ends in the answer.

        Raises OSError where this machine ran out of descriptors, ports or memory.
        """
        ends_at = time.monotonic() + seconds
        try:
            target = _usable(url)
            with self._connect(target, ends_at) as sock:
                return self._exchange(sock, target, url, ends_at)
        except _Refused as refused:
            refusal = Refusal(reason=refused.reason, stage=Stage.FETCH, detail=str(refused))
            return Answer(refusal=refusal, pause=refused.pause, bytes_read=refused.bytes_read)

    def _connect(self, target: Target, ends_at: float) -> socket.socket:
        last = _Refused(Reason.CONNECT_FAILED, "no address")
        for address in self._addresses(target.host, ends_at)[:_MOST_ADDRESSES]:
            try:
                sock = socket.create_connection((address, target.port), self._wait(ends_at))
            except OSError as error:
                last = _unconnected(error, f"{address} port {target.port}")
            else:
                return sock if target.scheme == "http" else self._shake_hands(sock, target.host, ends_at)
        raise last

    def _addresses(self, host: str, ends_at: float) -> tuple[str, ...]:
        try:
            found = self._resolver.addresses(host, self._wait(ends_at))
        except UnknownHost as error:
            raise _Refused(Reason.DNS_UNKNOWN_HOST, f"{host}: {error}") from error
        except NoAnswer as error:
            raise _Refused(Reason.DNS_NO_ANSWER, f"{host}: {error}") from error
        if not self._settings.allow_private_hosts:
            for address in found:
                if address not in self._settings.allowed_addresses and not is_public(address):
                    raise _Refused(Reason.PRIVATE_ADDRESS, f"{host} is at {address}")
        return found

    def _wait(self, ends_at: float) -> float:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise _Refused(Reason.TIMED_OUT, "no byte had come when the URL's time was up")
        return min(self._settings.connect_timeout, left)

    def _shake_hands(self, sock: socket.socket, host: str, ends_at: float) -> socket.socket:
        try:
            sock.settimeout(self._wait(ends_at))
            return self._tls.wrap_socket(sock, server_hostname=host.removesuffix("."))
        except (ssl.SSLError, OSError, _Refused, ValueError) as error:
            sock.close()
            raise _unshaken(error) from error

    def _exchange(self, sock: socket.socket, target: Target, url: str, ends_at: float) -> Answer:
        wire = _Wire(sock, self._settings.read_timeout, ends_at)
        try:
            with _http_errors():
                sock.settimeout(self._wait(ends_at))
                sock.sendall(self._request(target))
                response = http.client.HTTPResponse(wire, method="GET")  # type: ignore[arg-type]
                with response:  # before begin(): one left to the garbage collector complains on the terminal
                    response.begin()
                    return replace(self._answer(response, url, wire), bytes_read=wire.came)
        except _Refused as refused:
            refused.bytes_read = wire.came
            raise

    def _request(self, target: Target) -> bytes:
        lines = (
            f"GET {target.path} HTTP/1.1",
            f"Host: {target.authority}",
            f"User-Agent: {self._settings.user_agent}",
            "Accept: image/jpeg, image/png, image/webp, image/avif, image/*;q=0.8, */*;q=0.5",
            "Accept-Encoding: identity",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode("ascii")

    def _answer(self, response: http.client.HTTPResponse, url: str, wire: _Wire) -> Answer:
        status = response.status
        if 200 <= status < 400 and self._opted_out(response.headers):
            raise _Refused(Reason.OPTED_OUT, "; ".join(response.headers.get_all("X-Robots-Tag", [])))
        if status in _REDIRECTS:
            return Answer(location=_location(response, url))
        if status == 206 or not 200 <= status < 300:
            raise _Refused(_reason_of(status), f"HTTP {status}", _retry_after(response.headers))
        return self._body(response, wire)

    def _opted_out(self, headers: Message) -> bool:
        cleaned = Message()
        for value in headers.get_all("X-Robots-Tag", []):
            cleaned["X-Robots-Tag"] = _VALUED_DIRECTIVE.sub("", value)
        return self._disallowed(cleaned, self._settings.robot, self._opt_outs)

    def _body(self, response: http.client.HTTPResponse, wire: _Wire) -> Answer:
        limit = self._settings.max_bytes
        declared = response.length
        if declared is not None and declared > limit:
            raise _Refused(Reason.BODY_TOO_LARGE, f"{declared} bytes declared, {limit} allowed")
        body, ends = io.BytesIO(), _ends(response, wire)
        seen = self._looked_at(response, body)
        if seen.refusal is not None:
            return Answer(refusal=seen.refusal, header=seen.header, bytes_spared=max(0, ends - wire.came))
        _read_on(response, body, limit + 1)
        if body.tell() > limit:
            raise _Refused(Reason.BODY_TOO_LARGE, f"more than {limit} bytes")
        if declared is not None and body.tell() < declared:
            raise _Refused(Reason.BODY_TRUNCATED, f"{body.tell()} of {declared} bytes came")
        if not body.tell():
            raise _Refused(Reason.BODY_EMPTY, "no byte in the body")
        return Answer(body=body)

    def _looked_at(self, response: http.client.HTTPResponse, body: io.BytesIO) -> Seen:
        """Reads until the look has seen enough. A body that ends before is for whoever decodes it."""
        for length in LOOKS:
            _read_on(response, body, min(length, self._settings.max_bytes))
            seen = _seen(self._look, body.getvalue()) if body.tell() == length else Seen()
            if seen is not None:
                return seen
        return Seen()


def _seen(look: Look, start: bytes) -> Seen | None:
    """What the look says. What it raises is a fault in here, and must not be taken for the server's."""
    try:
        return look(start)
    except Exception as error:
        raise RuntimeError(f"looking at a picture's first {len(start)} bytes failed: {error!r}") from error


def _ends(response: http.client.HTTPResponse, wire: _Wire) -> int:
    """How many bytes the wire will have given when the declared body is there; 0 where no length was declared.

    Asked before any of the body is taken: what was read ahead with HTTP's headers is the body's start.
    """
    if not response.length:
        return 0
    ahead = len(response.fp.peek())
    return wire.came - ahead + response.length


def _read_on(response: http.client.HTTPResponse, body: io.BytesIO, length: int) -> None:
    """Reads until `body` has `length` bytes, or all there are."""
    while piece := response.read(min(_PIECE, length - body.tell())):
        body.write(piece)


def _usable(url: str) -> Target:
    try:
        return parse_target(url)
    except ValueError as error:
        raise _Refused(Reason.URL_MALFORMED, str(error)) from error


def _unconnected(error: OSError, where: str) -> _Refused:
    if error.errno in _OURS:
        raise error
    if isinstance(error, TimeoutError):
        return _Refused(Reason.TIMED_OUT, f"no connection to {where} in time")
    return _Refused(Reason.CONNECT_FAILED, f"{where}: {error.strerror or error}")


def _unshaken(error: Exception) -> _Refused:
    if isinstance(error, _Refused):
        return error
    if isinstance(error, TimeoutError):
        return _Refused(Reason.TIMED_OUT, "no TLS handshake in time")
    if isinstance(error, ConnectionError):
        return _Refused(Reason.CONNECTION_RESET, "reset in the TLS handshake")
    return _Refused(Reason.TLS_FAILED, str(error))


@contextmanager
def _http_errors() -> Iterator[None]:
    """What can go wrong between a connected socket and the last byte, as refusals."""
    try:
        yield
    except TimeoutError as error:  # sending; reads have their own
        raise _Refused(Reason.TIMED_OUT, "the request could not be sent in time") from error
    except http.client.RemoteDisconnected as error:
        raise _Refused(Reason.CONNECTION_RESET, "closed without an answer") from error
    except OSError as error:  # ssl.SSLError among them: it broke after the handshake
        if error.errno in _OURS:
            raise
        raise _Refused(Reason.CONNECTION_RESET, error.strerror or str(error)) from error
    except http.client.IncompleteRead as error:
        raise _Refused(Reason.BODY_TRUNCATED, "the body ended inside a chunk") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _Refused(Reason.HTTP_PROTOCOL_ERROR, f"{type(error).__name__}: {error}"[:200]) from error


def _location(response: http.client.HTTPResponse, url: str) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise _Refused(Reason.HTTP_PROTOCOL_ERROR, f"HTTP {response.status} that points nowhere")
    try:
        # http.client reads headers as Latin-1; servers that send raw UTF-8 mean UTF-8
        target = urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
        parse_target(target)
    except ValueError as error:
        raise _Refused(Reason.HTTP_PROTOCOL_ERROR, f"redirect to {location[:200]!r}: {error}") from error
    return target


def _reason_of(status: int) -> Reason:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 400 <= status < 500:
        return Reason.HTTP_CLIENT_ERROR
    return Reason.HTTP_SERVER_ERROR if 500 <= status < 600 else Reason.HTTP_PROTOCOL_ERROR


def _retry_after(headers: Message) -> float | None:
    """Seconds until the time that Retry-After names, as a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
