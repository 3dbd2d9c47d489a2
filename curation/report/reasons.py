"""Each stage and each reason in one plain sentence, for people who did not write the filter."""

from __future__ import annotations

from typing import Final

from curation.records import Reason, Stage

STAGES: Final[dict[Stage, str]] = {
    Stage.LIST: "What the list itself says, before a byte is downloaded",
    Stage.FETCH: "Downloading",
    Stage.DECODE: "Decoding",
    Stage.SCORE: "Scoring",
    Stage.JUDGE: "Size and score against the thresholds",
    Stage.DUPLICATES: "Duplicates, across the whole list",
    Stage.KEPT: "Kept",
}

REASONS: Final[dict[Reason, str]] = {
    Reason.KEPT: "Large enough, every metric agrees, and no earlier picture is the same.",
    Reason.URL_MALFORMED: "The line holds nothing that can be read as a link.",
    Reason.URL_NOT_HTTP: "The link asks for something else than http or https.",
    Reason.URL_REPEATED: "An earlier line holds the very same link.",
    Reason.DECLARED_TOO_SMALL: "The list gives a size under the smallest allowed.",
    Reason.DECLARED_UNSAFE: "The list rates the picture as probably unsafe.",
    Reason.DECLARED_WATERMARK: "The list rates the picture as probably watermarked.",
    Reason.PRIVATE_ADDRESS: "The link, or where it leads, is an address inside a private network.",
    Reason.DNS_UNKNOWN_HOST: "The host's name does not exist (any more).",
    Reason.DNS_NO_ANSWER: "No name server answered for the host; a later try may do better.",
    Reason.CONNECT_FAILED: "The host did not accept a connection.",
    Reason.CONNECTION_RESET: "The host broke the connection off.",
    Reason.TLS_FAILED: "No trusted encrypted connection came about, often for an expired certificate.",
    Reason.TIMED_OUT: "The host fell silent for longer than we wait.",
    Reason.TOO_SLOW: "Bytes came, but not all of them within the time a link is given.",
    Reason.HTTP_FORBIDDEN: "The host answers, and does not hand the picture out.",
    Reason.HTTP_NOT_FOUND: "The host answers that the picture is gone.",
    Reason.HTTP_RATE_LIMITED: "The host asks for fewer requests; a later try may do better.",
    Reason.HTTP_CLIENT_ERROR: "The host rejects the request in another way.",
    Reason.HTTP_SERVER_ERROR: "The host reports a fault of its own; a later try may do better.",
    Reason.HTTP_PROTOCOL_ERROR: "The answer is not proper HTTP, or redirects without end.",
    Reason.OPTED_OUT: "The host asks that its pictures not be used this way, and they are not.",
    Reason.BODY_TRUNCATED: "Fewer bytes came than were announced.",
    Reason.BODY_TOO_LARGE: "The file is larger than the largest allowed.",
    Reason.BODY_EMPTY: "The answer has no bytes in it.",
    Reason.NOT_MEASURED: "Today's thresholds let it through, but its run never looked at it; --retry-failed does.",
    Reason.NOT_STORED: "Passes today's thresholds, but its bytes were not kept; --retry-failed fetches them.",
    Reason.NOT_AN_IMAGE: "The file is no picture: a web page, a drawing in SVG, something unknown.",
    Reason.FORMAT_REFUSED: "A picture, but not JPEG, PNG, WebP or AVIF.",
    Reason.ANIMATED: "More than one frame.",
    Reason.TOO_MANY_PIXELS: "More pixels than are safe to decode.",
    Reason.TRUNCATED: "The file ends before the picture does.",
    Reason.CORRUPT: "The file is damaged.",
    Reason.TOO_SMALL: "One side is shorter than the smallest allowed.",
    Reason.FLAT: "Nothing but even areas: there is nothing to measure.",
    Reason.UNSCORABLE: "A metric gives no finite number for it.",
    Reason.LOW_QUALITY: "At least one metric votes against it.",
    Reason.DUPLICATE_EXACT: "The same bytes as a picture earlier in the list.",
    Reason.DUPLICATE_NEAR: "Looks the same as a picture earlier in the list.",
    Reason.FORGOTTEN: "Removed on request; what repeats it does not take its place.",
}
