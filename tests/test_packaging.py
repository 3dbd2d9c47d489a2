"""What `pip install` makes of the project: commands that start, packages that are whole, one version of everything."""

from __future__ import annotations

import configparser
import importlib
from importlib import metadata
from pathlib import Path

import pytest

from curation.fetch_settings import FetchSettings
from curation.records import Reason

PROJECT = Path(__file__).resolve().parents[1]


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg", "utf-8")
    return parser


SETUP = _setup()


def _lines(section: str, option: str) -> list[str]:
    """The entries of a list in setup.cfg, comments left out."""
    entries = (line.strip() for line in SETUP[section][option].splitlines())
    return [line for line in entries if line and not line.startswith("#")]


COMMANDS = dict(line.split(" = ") for line in _lines("options.entry_points", "console_scripts"))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_can_be_started_and_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, name = COMMANDS[command].partition(":")
    main = getattr(importlib.import_module(module), name)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {command} ")
    assert f"example:\n  {command} " in said


def test_the_packages_named_exist_and_none_is_left_out() -> None:
    named = {pattern.removesuffix("*") for pattern in _lines("options.packages.find", "include")}
    there = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert named == there - {"tests"}


def test_servers_are_told_the_version_that_is_asking() -> None:
    version = SETUP["metadata"]["version"]
    assert FetchSettings().user_agent == f"{SETUP['metadata']['name']}/{'.'.join(version.split('.')[:2])}"
    assert metadata.version("million-ird") == version


def test_both_distributions_of_opencv_are_the_same_version() -> None:
    """They install the same files: two versions leave a package made of both."""
    versions = {metadata.version(name) for name in ("opencv-python", "opencv-python-headless")}
    assert len(versions) == 1
    pinned = {line.partition("==")[2] for line in _lines("options", "install_requires") if line.startswith("opencv")}
    assert pinned == versions


def test_the_licence_is_the_one_declared() -> None:
    text = (PROJECT / "LICENSE").read_text("utf-8").split()
    assert " ".join(text[:5]) == "Apache License Version 2.0, January"
    assert SETUP["metadata"]["license"] == "Apache-2.0"


def test_the_python_versions_declared_are_the_ones_allowed() -> None:
    said = {line.rpartition(" ")[2] for line in _lines("metadata", "classifiers") if line.rpartition(" ")[2] != "3"}
    assert said == {"3.10", "3.11", "3.12", "3.13"}
    assert SETUP["options"]["python_requires"] == ">=3.10,<3.14"


def test_the_readme_says_how_many_reasons_there_are() -> None:
    assert f"There are {len(Reason)} reasons, " in (PROJECT / "README.md").read_text("utf-8")
