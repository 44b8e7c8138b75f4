"""The house: who may import whom, what travels with a checkpoint, what an installation puts where."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from efficientbert.__main__ import SCRIPTS


ROOT = Path(__file__).parents[1]
ROOT_FILES = [  # low to high
    "ffn_efficientbert",
    "configuration_efficientbert",
    "slicing_efficientbert",
    "modeling_efficientbert",
    "__init__",
]
MODULES = sorted(path.relative_to(ROOT) for folder in ("train", "search") for path in (ROOT / folder).rglob("*.py"))
TRAVELLING = sorted(ROOT.glob("*_efficientbert.py"))
LIBRARIES = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
MAY_USE = {"train": {"root", "train"}, "search": {"root", "train", "search"}}  # of the package, by folder


def imports(path: Path) -> list[tuple[int, str]]:
    """Every import of a file at any depth, as (leading dots, dotted name)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.level, node.module)]
            found += [(node.level, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, alias.name) for alias in node.names]
    return found


def part(name: str) -> str:
    """Where `efficientbert.NAME` lives: train, search, or the root files."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[1] in MAY_USE else "root"


def is_script(path: Path) -> bool:
    """Whether a file is a command: it has a function `cli`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "cli" for node in tree.body)


def test_the_files_are_found():
    assert {path.stem for path in TRAVELLING} == set(ROOT_FILES[:4])
    assert len(MODULES) > 10


@pytest.mark.parametrize("stem", ROOT_FILES)
def test_root_files_import_only_lower_ones_beside_them(stem):
    lower = ROOT_FILES[: ROOT_FILES.index(stem)]
    for dots, name in imports(ROOT / f"{stem}.py"):
        if dots:
            assert dots == 1
            assert name.split(".")[0] in lower
        else:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "torch", "transformers", "huggingface_hub"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_import_downwards(path):
    for dots, name in imports(ROOT / path):
        assert dots == 0, "imports inside the package are written out, so that a file also runs as a script"
        assert name.split(".")[0] not in {"train", "search", "tests", "benchmarks", "recipes", "examples"}
        if name.split(".")[0] == "efficientbert":
            assert part(name) in MAY_USE[path.parts[0]], name


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_nobody_imports_a_command(path):
    scripts = {".".join(("efficientbert", *script.with_suffix("").parts)) for script in MODULES if is_script(script)}
    assert len(scripts) == len(SCRIPTS)
    assert not scripts & {name for _, name in imports(ROOT / path)}


@pytest.mark.parametrize("path", [path for path in MODULES if is_script(path)], ids=str)
def test_commands_hold_arguments_and_main_alone(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    held = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [name for name in held if not name.endswith("Arguments")] == ["main", "cli"]


def imported_modules() -> dict[str, set[str]]:
    """Of every module of the package, the others that it imports anywhere: also in functions and for types alone."""
    paths = [*MODULES, *(Path(f"{stem}.py") for stem in ROOT_FILES)]
    names = {
        path: ".".join(("efficientbert", *path.with_suffix("").parts)).removesuffix(".__init__") for path in paths
    }
    found = {}
    for path, module in names.items():
        written = (f"efficientbert.{name}" if dots else name for dots, name in imports(ROOT / path))
        found[module] = {name for name in written if name in names.values()} - {module}
    return found


def import_cycle(imported: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there are none."""
    left = dict(imported)
    while leaves := [module for module, others in left.items() if not others & left.keys()]:
        for module in leaves:
            del left[module]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle():
    imported = imported_modules()
    assert "efficientbert.search.space.space" in imported["efficientbert.search.preparation"]
    assert "efficientbert.ffn_efficientbert" in imported["efficientbert.search.space.expressions"]
    assert import_cycle(imported) == []
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__init__.py"], ids=str)
def test_no_file_shadows_a_library(path):
    """A script that is run by its path finds the files beside it before any library."""
    assert path.stem not in LIBRARIES


def test_installation_brings_one_package(tmp_path):
    pytest.importorskip("setuptools")
    folders = {"train", "search", "tests", "benchmarks", "recipes"}
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
        elif path.name in folders:
            shutil.copytree(path, tmp_path / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "built"
    assert [path.name for path in built.iterdir()] == ["efficientbert"]
    found = {path.relative_to(built / "efficientbert") for path in built.rglob("*.py")}
    assert {path for path in found if len(path.parts) > 1} == set(MODULES)
    assert {path.name for path in found if len(path.parts) == 1} >= {f"{stem}.py" for stem in ROOT_FILES}
    assert not {"setup.py", "conftest.py"} & {path.name for path in found}
    assert (built / "efficientbert" / "search" / "known" / "gte-small.json").is_file()
    assert (built / "efficientbert" / "py.typed").is_file()  # else checkers take its types for unknown
    code = (
        "import runpy, efficientbert as e; print(e.__file__); runpy.run_module('efficientbert', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--help"]
    environment = os.environ | {"PYTHONPATH": str(built)}
    shown = subprocess.run(command, cwd=built.parent / "tests", env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    place, *usage = shown.stdout.splitlines()
    assert Path(place) == built / "efficientbert" / "__init__.py"
    assert [line.split()[0] for line in usage[2 : 2 + len(SCRIPTS)]] == [*SCRIPTS]


def test_installed_names():
    distribution = importlib.metadata.distribution("efficientbert")
    assert distribution.read_text("top_level.txt").split() == ["efficientbert"]
    scripts = {entry.name: entry.value for entry in distribution.entry_points if entry.group == "console_scripts"}
    assert scripts == {"efficientbert": "efficientbert.__main__:main"}
