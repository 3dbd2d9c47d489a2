"""What a store or a stream can't do, for those who speak to it and those who speak for it."""

from __future__ import annotations


class StoreError(ValueError):
    """The store can't do what was asked: the message names the object, the cause and the remedy."""


class StreamError(RuntimeError):
    """The stream can't go on: the message names the object and the cause."""
