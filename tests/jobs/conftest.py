"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

Said = Callable[..., str]


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[ModuleType, ModuleType], Said]:
    """Of a command and the pipeline it starts: a call of it in here that gives the one sentence it stops with.

    To start Ray is an error.
    """

    def refuse() -> None:
        raise AssertionError("work started")

    def of(command: ModuleType, pipeline: ModuleType) -> Said:
        monkeypatch.setattr(pipeline, "connected", refuse)

        def stopped(*words: object) -> str:
            status = command.main([str(word) for word in words])
            captured = capsys.readouterr()
            assert (status, captured.out, captured.err.count("\n")) == (2, "", 1)
            assert captured.err.startswith(f"{command.PROGRAM}: ")
            return captured.err.removeprefix(f"{command.PROGRAM}: ").strip()

        return stopped

    return of
