"""How S3 is spoken to: one client a server, another try for what passes, one sentence for what doesn't.

A request is tried five times by botocore itself (503 SlowDown, time-outs, connections that break: about 7 s in all).
What botocore does not see, a body that breaks off in the middle or comes out damaged, and a server that is in trouble
for longer, is tried again here, up to six times with waits of up to 20 s: a burst of errors of a minute is survived.
Credentials that have expired are read anew, once; then it is the user's turn. No message has any of them.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)

from shards.errors import StoreError

REQUESTS: Final = 5  # tries by botocore, each of ours
TRIES: Final = 6
FIRST_WAIT: Final = 1.0  # seconds, doubled each time, less a random part
LONGEST_WAIT: Final = 20.0
READ_TIMEOUT: Final = 60.0  # seconds without a byte

_STALE: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
    | {"InvalidAccessKeyId", "400", "403"}  # an answer to HEAD has no more than a number
)
_DENIED: Final = frozenset({"403", "AccessDenied", "AllAccessDisabled", "AccountProblem"})
_PASSING: Final = frozenset(
    {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "InternalError"}
    | {"ServiceUnavailable", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
    | {"IncompleteBody", "OperationAborted", "429"}
)
_UNSUPPORTED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "405", "501"})

Answer = TypeVar("Answer")


class Damaged(Exception):
    """Other bytes came out than went in; the same again may do."""


class Unsupported(StoreError):
    """The server doesn't know the request: not every S3 server has all of them."""


class NoSuchUpload(StoreError):
    """The multipart upload is over: completed, aborted, or expired by a rule of the bucket."""


class Broken(StoreError):
    """The object could not be read whole: each time other bytes came than the server says it has."""


class _Clients:
    """The client of each server. boto3 makes them one at a time; afterwards any thread may use them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begins anew: a forked process must not talk on its parent's connections, nor wait for its threads."""
        self._lock = threading.Lock()
        self._of: dict[str | None, Any] = {}

    def of(self, endpoint_url: str | None) -> Any:
        with self._lock:
            if endpoint_url not in self._of:
                self._of[endpoint_url] = _new_client(endpoint_url)
            return self._of[endpoint_url]

    def renew(self, endpoint_url: str | None, stale: Any) -> None:
        """Another client, with credentials read anew, unless another thread has made one since."""
        with self._lock:
            if self._of.get(endpoint_url) is stale:
                del self._of[endpoint_url]


_CLIENTS: Final = _Clients()
os.register_at_fork(after_in_child=_CLIENTS.forget)


def _new_client(endpoint_url: str | None) -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": REQUESTS},
        connect_timeout=10,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=64,
        # other servers than AWS's don't know the checksums that boto3 would add by itself; uploads send their own
        request_checksum_calculation="when_required",
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


def ask(
    endpoint_url: str | None,
    place: str,
    question: Callable[[Any], Answer],
    pause: Callable[[float], None] = time.sleep,
) -> Answer:
    """What `question` gives of the server's client; asked again where that may help, so it must bear repetition.

    `place` is the object's URL, for messages; `pause` waits so many seconds. Raises FileNotFoundError where there is
    no such object, StoreError for everything else that stays.
    """
    left, renewed = TRIES, False
    while True:
        left -= 1
        client = None
        try:
            client = _CLIENTS.of(endpoint_url)
            return question(client)
        except (ClientError, BotoCoreError, Damaged) as error:
            if not renewed and _code(error) in _STALE:
                _CLIENTS.renew(endpoint_url, client)
                renewed = True
            elif left and _passes(error):
                pause(_wait(TRIES - left))
            else:
                raise _final(error, place) from error


def is_beyond_end(error: ClientError) -> bool:
    """Whether it says that the object ends before the range that was asked for."""
    return _code(error) in ("InvalidRange", "416")


def _wait(tries: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _passes(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _code(error) in _PASSING or (status >= 500 and status != 501)
    if isinstance(error, EndpointConnectionError):  # nobody listens there: botocore has tried long enough
        return False
    return isinstance(error, (HTTPClientError, IncompleteReadError, FlexibleChecksumError, Damaged))


def _final(error: Exception, place: str) -> Exception:
    """What the caller hears: in a sentence, with the object and the remedy."""
    code = _code(error)
    if code in ("404", "NoSuchKey"):
        return FileNotFoundError(place)
    if code == "NoSuchUpload":
        return NoSuchUpload(f"the upload of {place} was ended by somebody else: give the same command again")
    if code in _UNSUPPORTED:
        return Unsupported(f"the S3 server does not know what {place} was asked for: {error}")
    if code == "NoSuchBucket":
        return StoreError(f"there is no bucket for {place}: make it first, or mend its name")
    if code in _DENIED:
        return StoreError(f"S3 refuses {place} ({code}): these credentials may not do that, or have expired")
    if code in _STALE:
        return StoreError(
            f"S3 no longer takes these credentials for {place} ({code}): renew them, then give the same command again"
        )
    if isinstance(error, (Damaged, FlexibleChecksumError)):
        return Broken(f"{place} came damaged, {TRIES} times: {error}")
    if code:
        return StoreError(f"S3 answers {code} for {place}: {error}")
    return StoreError(_without_answer(error, place))


def _without_answer(error: Exception, place: str) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return (
            f"no credentials for {place} ({error}): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or `aws configure`"
        )
    if isinstance(error, EndpointConnectionError):
        return f"S3 can't be used for {place}: nobody answers there ({error}); check --endpoint-url"
    return f"S3 can't be used for {place}: {error}"
