"""The shape of the code: what may import what, how long things may be, what is public."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainkit

ROOT = Path(trainkit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

# A module may import, lazily or not, only from the rows above its own, and from its own package.
LAYERS = [
    ["errors", "history"],
    ["config", "dist", "message_hub", "checkpoint", "env"],
    ["run_dir", "seed", "log", "data", "launch"],
    ["dataloader"],
    ["model", "optim_wrapper", "evaluator", "visualizer"],
    ["hook", "log_processor", "param_scheduler"],
    ["loops"],
    ["hooks"],
    ["runner"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Constructors that mirror MMEngine's, and the class that names every point.
LONG_SIGNATURES = {
    *("Assembly.__init__", "BaseDataset.__init__", "CheckpointHook.__init__"),
    "OneCycleLR.__init__",
    *("ProfilerHook.__init__", "ReduceOnPlateauLR.__init__"),
}
MANY_METHODS = {"Hook"}


def _package(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of trainkit's parts that a module imports while it runs; not those only for typing."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if parts[0] == "trainkit":
                yield from parts[1:2] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("trainkit."))
        yield from _imports(node)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.walk(tree):
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        if isinstance(node, ast.Module | ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    yield f"{owner}{child.name}", child


def _code_lines(function: ast.FunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    own = _package(file)
    if own == "__init__":
        return
    for other in _imports(TREES[file]):
        below = [name for names in LAYERS[: RANK[own]] for name in names]
        allowed = other == own or other in below or other == "__version__"
        assert allowed, f"{file.name} imports {other}; {own} may import {below}"


def _targets(file: Path) -> Iterator[Path]:
    """Modules of trainkit that a module imports, lazily or not, but for typing."""
    stack: list[ast.AST] = [TREES[file]]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainkit."):
            base = ROOT.joinpath(*(node.module or "").split(".")[1:])
            inside = [base / f"{alias.name}.py" for alias in node.names]
            module = base.with_suffix(".py") if base.with_suffix(".py").exists() else base
            found = [path for path in inside if path.exists()]
            yield from found or [module if module.suffix else base / "__init__.py"]
        stack += ast.iter_child_nodes(node)


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {file: set(_targets(file)) for file in FILES}
    for start in FILES:
        seen: set[Path] = set()
        todo = list(edges[start])
        while todo:
            file = todo.pop()
            assert file != start, f"{start} imports itself by way of others"
            if file not in seen:
                seen.add(file)
                todo += edges[file]


def test_only_config_and_the_command_line_know_hydra() -> None:
    for file, tree in TREES.items():
        names = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in names):
            allowed = _package(file) in ("config", "cli") or file.name == "from_config.py"
            assert allowed, f"{file} imports hydra or omegaconf"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_sizes_stay_within_limits(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for name, function in _functions(TREES[file]):
        arguments = function.args
        count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
        count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
        if name not in LONG_SIGNATURES:
            assert count <= 7, f"{name} has {count} parameters"
            assert _code_lines(function) <= 40, f"{name} has {_code_lines(function)} lines"
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.ClassDef) and node.name not in MANY_METHODS:
            public = [
                child
                for child in node.body
                if isinstance(child, ast.FunctionDef)
                and not child.name.startswith("_")
                and not any("property" in ast.dump(d) for d in child.decorator_list)
            ]
            assert len(public) <= 20, f"{node.name} has {len(public)} public methods"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_everything_is_annotated(file: Path) -> None:
    for name, function in _functions(TREES[file]):
        assert function.returns is not None, name
        for argument in [*function.args.args, *function.args.kwonlyargs]:
            assert argument.annotation or argument.arg in ("self", "cls"), f"{name}({argument.arg})"


def test_public_names_are_sorted_complete_and_importable() -> None:
    assert trainkit.__all__ == sorted(trainkit.__all__)
    assert set(trainkit.__all__) == set(trainkit._HOMES)
    for name in trainkit.__all__:
        assert getattr(trainkit, name) is getattr(
            importlib.import_module(trainkit._HOMES[name]), name
        )
    with pytest.raises(AttributeError, match="no attribute 'Ruiner'"):
        _ = trainkit.Ruiner


@pytest.mark.parametrize("package", sorted({f.parent for f in FILES if f.parent != ROOT}))
def test_a_package_exports_what_it_imports(package: Path) -> None:
    module = importlib.import_module(f"trainkit.{package.name}")
    exported = getattr(module, "__all__", [])
    tree = TREES[package / "__init__.py"]
    imported = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module.__name__)
        for alias in node.names
    ]
    assert sorted(exported) == sorted(imported)
