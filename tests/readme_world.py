"""Where the README's commands are run: one folder, one bucket, and what they name in them.

Each command finds the folder and the bucket empty but for what it needs. What it needs is made once and copied. It is
one folder for all of them, since the processes of the one Ray stay where they were started.
"""

from __future__ import annotations

import functools
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from jobs.hostile_server import HttpServer
from tests import readme
from tests.readme import Make
from tests.test_packaging import COMMANDS

BUCKET: Final = "bucket"
S3: Final = "s3://"


@dataclass
class World:
    """`here`: the folder that commands run in. `made`: what was made for one of them, to be copied for the next."""

    here: Path
    pantry: Path
    server: HttpServer
    prior: Path
    endpoint_url: str
    made: dict[Make, Path] = field(default_factory=dict)

    # ---------------------------------------------------------------- around a command

    def prepare(self, needs: Mapping[str, Make]) -> None:
        """The folder and the bucket hold what is needed, and nothing of the command before."""
        for make in needs.values():
            self.one(make)
        self._clear()
        for name, make in needs.items():
            self._put(name, make)

    def _clear(self) -> None:
        for path in self.here.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for key in self._keys():
            self._client.delete_object(Bucket=BUCKET, Key=key)

    def one(self, make: Make) -> Path:
        """What `make` makes, not to be changed."""
        if make not in self.made:
            folder = self.pantry / str(len(self.made))
            folder.mkdir()
            self.made[make] = folder / getattr(make, "__name__", "made")
            make(self, self.made[make])
        return self.made[make]

    def _put(self, name: str, make: Make) -> None:
        """What `make` makes, under this name of the folder or below s3://bucket/."""
        source = self.one(make)
        if name.startswith(S3):
            self._upload(source, name.removeprefix(f"{S3}{BUCKET}/"))
        elif source.is_dir() and not source.is_symlink():
            shutil.copytree(source, self.here / name, dirs_exist_ok=True)
        else:
            (self.here / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.here / name, follow_symlinks=False)

    def has(self, pattern: str) -> bool:
        """Whether something is there by this name, in the folder or below s3://bucket/."""
        if pattern.startswith(S3):
            wanted = pattern.removeprefix(f"{S3}{BUCKET}/")
            return any(Path(key).match(wanted) for key in self._keys())
        return any(self.here.glob(pattern))

    @functools.cached_property
    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint_url)

    def _keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def _upload(self, source: Path, key: str) -> None:
        if source.is_file():
            self._client.upload_file(str(source), BUCKET, key)
            return
        for path in source.rglob("*"):
            if path.is_file():
                self._client.upload_file(str(path), BUCKET, f"{key}/{path.relative_to(source).as_posix()}")

    # ---------------------------------------------------------------- a command

    def run(self, line: str) -> int:
        """The exit status of a line, given in the folder: in this process where it is a command of the project."""
        program, *words = readme.words(line, self.here)
        if program in COMMANDS:
            module, _, name = COMMANDS[program].partition(":")
            return int(getattr(import_module(module), name)(words))
        if program == "python":
            return _script(*words)
        mine = {**os.environ, "HOME": str(self.here), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run([program, *words], cwd=self.here, env=mine).returncode


def _script(path: str, *words: str) -> int:
    """What `python PATH WORDS` does, in this process."""
    with pytest.MonkeyPatch.context() as now:
        now.setattr(sys, "argv", [path, *words])
        now.setattr(sys, "path", [str(Path(path).parent), *sys.path])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0
