"""The limits of a download: what one URL, one host and one chunk may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSettings:
    """How a chunk is downloaded. Its memory: at most 2 x `threads` bodies at once, each of at most `max_bytes`."""

    threads: int = 64  # downloads at once in this process
    per_host: int = 4  # requests at once to one host, over all processes of this machine
    connect_timeout: float = 10.0  # seconds for each of: the lookup, the connection per address, the TLS handshake
    read_timeout: float = 10.0  # seconds without a byte
    deadline: float = 60.0  # seconds of work on one URL: all tries, redirects, headers and body
    max_bytes: int = 32 << 20  # bytes of a body
    max_redirects: int = 5  # hops after the first request
    attempts: int = 3  # tries per URL, where the failure is transient
    backoff: float = 1.0  # seconds before the second try; doubles with each, plus up to half as jitter
    max_retry_after: float = 30.0  # seconds; a host that asks for a longer pause is left alone in this call
    host_strikes: int = 4  # time-outs in a row after which a host's untried URLs are not tried in this call
    user_agent: str = "million-ird/0.1"  # the part before the slash is the name X-Robots-Tag may address
    opt_outs: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex", "noml")  # of X-Robots-Tag
    allow_private_hosts: bool = False  # reach loopback, private and link-local addresses too
    allowed_addresses: frozenset[str] = frozenset()  # addresses reached although not public: your own server
    resolver_probe: str = "example.com"  # asked when a whole chunk's names have no address: has this one?

    def __post_init__(self) -> None:
        for name in ("threads", "per_host", "max_bytes", "attempts", "host_strikes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("connect_timeout", "read_timeout", "deadline"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give seconds above 0")
        for name in ("backoff", "max_retry_after", "max_redirects"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not re.fullmatch(r"[!-~]+( [!-~]+)*", self.user_agent):
            raise ValueError(f"user_agent is {self.user_agent!r}: give printable ASCII, such as my-project/1.0")

    @property
    def robot(self) -> str:
        """The name under which X-Robots-Tag may address this robot alone: `million-ird`."""
        return self.user_agent.partition("/")[0].lower()
