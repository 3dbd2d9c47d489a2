"""The shape of the code: what may import what, read from the syntax tree of every file.

An import counts wherever it stands: in a function, under TYPE_CHECKING, relative, or by name through importlib.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("shards", "curation", "dynet", "pipelines", "jobs")

#: What each package may import of this project, besides itself.
ALLOWED = {
    "shards": set(),
    "curation": {"shards"},
    "dynet": {"shards"},
    "pipelines": {"shards", "curation", "dynet"},
    "jobs": {"shards", "curation", "dynet", "pipelines"},
}
FRAMEWORKS = {"torch", "torchvision", "pyiqa"}
#: What reads and writes lists, tars, ledgers and manifests, and what every worker imports first: numpy and Arrow do.
WITHOUT_TORCH = [
    *(f"shards/{path.name}" for path in (PROJECT / "shards").glob("*.py") if path.stem not in ("loader", "stream")),
    *(f"curation/{name}.py" for name in ("records", "urls", "chunks", "ledger", "originals", "judge", "settle")),
]


def modules(*parts: str) -> list[Path]:
    """The Python files of these packages and files."""
    found = [path for part in parts for path in _files(PROJECT / part)]
    assert found, f"no Python file in {parts}"
    return found


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imports(path: Path, root: Path = PROJECT) -> Iterator[tuple[int, str]]:
    """(line, full name) of all that a file imports."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _imports_by_name(node.func):
            words = (word.value for word in node.args if isinstance(word, ast.Constant))
            yield from ((node.lineno, word) for word in words if isinstance(word, str))


def _imports_by_name(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("import_module", "__import__")


def top(name: str) -> str:
    """`torch` of `torch.nn.functional`."""
    return name.partition(".")[0]


def offences(files: list[Path], forbidden: set[str]) -> list[str]:
    """file:line of each import of one of these top-level packages."""
    return [
        f"{path.relative_to(PROJECT)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if top(name) in forbidden
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    assert not offences(modules(package), set(PACKAGES) - ALLOWED[package] - {package})


def test_no_package_knows_the_tests() -> None:
    assert not offences(modules(*PACKAGES), {"tests", "pytest"})


def test_ray_is_for_those_who_compose_and_launch() -> None:
    assert not offences(modules("shards", "curation", "dynet"), {"ray"})


def test_what_reads_and_writes_files_does_without_torch() -> None:
    assert not offences(modules(*WITHOUT_TORCH), FRAMEWORKS)


def test_torch_is_imported_where_it_is_used_and_not_at_the_top_of_curation() -> None:
    """A worker that downloads then starts without it: `import torch` costs seconds and hundreds of MB."""
    at_the_top = [
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for path in modules("curation")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom) and {top(name) for name in _names(node)} & FRAMEWORKS
    ]
    assert not at_the_top


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


def test_a_helper_lives_beside_its_noun() -> None:
    vague = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert not [path for path in modules(*PACKAGES, "tests") if path.name in vague]


def test_tests_use_real_parts() -> None:
    mocks = [
        f"{path.relative_to(PROJECT)}:{line}"
        for path in modules("tests")
        for line, name in imports(path)
        if top(name) == "mock" or name.startswith("unittest.mock")
    ]
    assert not mocks


def test_every_folder_of_code_is_a_package() -> None:
    """Else `find:` in setup.cfg leaves it out of what is installed."""
    folders = {path.parent for path in modules(*PACKAGES)}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_this_file_sees_imports_wherever_they_hide(tmp_path: Path) -> None:
    (tmp_path / "curation" / "inner").mkdir(parents=True)
    path = tmp_path / "curation" / "inner" / "sly.py"
    path.write_text(
        "from __future__ import annotations\n"
        "import importlib\n"
        "from typing import TYPE_CHECKING\n"
        "from . import beside\n"
        "from .. import ledger\n"
        "from ...dynet import model\n"
        "if TYPE_CHECKING:\n"
        "    import torch.nn as nn\n"
        "def late():\n"
        "    from ray import data\n"
        "    importlib.import_module('pipelines.units')\n"
    )
    assert {name for _, name in imports(path, tmp_path)} == {
        "__future__.annotations",
        "importlib",
        "typing.TYPE_CHECKING",
        "curation.inner.beside",
        "curation.ledger",
        "dynet.model",
        "torch.nn",
        "ray.data",
        "pipelines.units",
    }
