"""Which Ray a job runs on, where an earlier one left its note behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipelines import cluster
from tests.conftest import free_port


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ray notes the latest cluster of this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_without_a_note_ray_decides(note: Path) -> None:
    assert cluster.address() is None


def test_a_note_of_a_dead_cluster_is_passed_over(note: Path) -> None:
    for text in (f"127.0.0.1:{free_port()}", "nonsense", ""):
        note.write_text(text)
        assert cluster.address() == "local"


def test_a_cluster_that_answers_is_taken(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        note.write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert cluster.address() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    note.write_text("127.0.0.1:1")
    assert cluster.address() is None  # the user's word
