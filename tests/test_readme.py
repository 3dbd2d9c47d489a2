"""Every command of the README is run, as it stands there, and so is its Python. What each needs: `readme_table.py`."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from jobs.hostile_server import HttpServer
from tests import readme
from tests.conftest import S3Server
from tests.pipelines.conftest import prior
from tests.readme import PROJECT, Elsewhere, Run, Target
from tests.readme_table import SNIPPETS, TABLE
from tests.readme_world import BUCKET, World

__all__ = ["prior"]  # the fixture

RUNS = [(command, run) for command in readme.commands() for run in TABLE.get(command, ()) if isinstance(run, Run)]
ELSEWHERE = [(command, one) for command, given in TABLE.items() for one in given if not isinstance(one, Run)]


def test_every_command_has_an_entry_and_every_entry_a_command() -> None:
    commands = readme.commands()
    assert [one for one in commands if one not in TABLE] == [], "the README's, and not in TABLE"
    assert [one for one in TABLE if one not in commands] == [], "in TABLE, and not the README's"
    assert all(TABLE.values())


def test_every_snippet_has_an_entry_and_every_entry_a_snippet() -> None:
    found = [[key for key in SNIPPETS if block.startswith(key)] for block in readme.blocks("python")]
    assert sorted(found) == sorted([key] for key in SNIPPETS)


@pytest.mark.parametrize(("command", "run"), RUNS)
def test_only_notation_is_written_otherwise(command: str, run: Run) -> None:
    assert readme.typed(command, run, "http://s3").split()[0] == command.split()[0]


@pytest.mark.parametrize(("command", "entry"), ELSEWHERE)
def test_what_runs_a_command_elsewhere_is_there(command: str, entry: Elsewhere | Target) -> None:
    for test in entry.tests:
        path, _, name = test.partition("::")
        parsed = ast.parse((PROJECT / path).read_text("utf-8"))
        assert name in {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}, test
    if isinstance(entry, Target):
        made = subprocess.run(["sh", "-c", f"{command} -n"], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert all(part in made.stdout for part in entry.recipe), made.stdout


# ---------------------------------------------------------------- run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, prior: Path) -> Iterator[World]:
    """One folder, one bucket, one Ray and one web server for all commands."""
    s3_server.bucket(BUCKET)
    here, pantry = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("pantry")
    ray.shutdown()  # that of other tests has another folder, and does not know the S3 server
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, HttpServer() as server:
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
        patch.chdir(here)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield World(here=here, pantry=pantry, server=server, prior=prior, endpoint_url=s3_server.endpoint_url)
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(("command", "run"), RUNS, ids=[command[:60] for command, _ in RUNS])
def test_a_command_does_as_the_readme_says(
    command: str, run: Run, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.prepare(run.needs)
    capfd.readouterr()
    line = readme.typed(command, run, world.endpoint_url)
    status = world.run(line)
    told = capfd.readouterr()
    assert status == 0, f"{line}\n{told.out}{told.err}"
    assert run.says in told.out
    assert [name for name in run.leaves if not world.has(name)] == []


@pytest.mark.slow
@pytest.mark.parametrize("block", readme.blocks("python"), ids=lambda block: block.partition("\n")[0][:60])
def test_a_snippet_does_as_the_readme_says(block: str, world: World) -> None:
    [snippet] = [one for key, one in SNIPPETS.items() if block.startswith(key)]
    world.prepare(snippet.needs)
    for text, other in snippet.values.items():
        assert text in block
        block = block.replace(text, other)
    names = dict(snippet.names())
    exec(compile(block, "README.md", "exec"), names)
    assert snippet.gives(names)
