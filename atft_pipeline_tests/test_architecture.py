"""The rules of docs/architecture.md that can be read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import atft_pipeline

ROOT = Path(atft_pipeline.__file__).parent
CHILD_MAY_IMPORT = {"torch", "torch_geometric", "numpy", "dagster_pipes", "atft_pipeline"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in the file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def offenders(folder: str, forbidden: set[str] | None = None, allowed: set[str] | None = None) -> list[str]:
    found = []
    for path in sorted(ROOT.glob(folder)):
        for line, module in imports(path):
            top = module.split(".")[0]
            third_party = top not in sys.stdlib_module_names
            if (forbidden and top in forbidden) or (allowed is not None and third_party and top not in allowed):
                found.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    return found


def test_only_the_dagster_layer_knows_dagster() -> None:
    outside = [
        line for line in offenders("**/*.py", forbidden={"dagster"}) if not line.startswith(("defs/", "definitions.py"))
    ]
    assert outside == []


@pytest.mark.parametrize("room", ["model", "training"])
def test_the_training_child_needs_torch_and_numpy_only(room: str) -> None:
    assert offenders(f"{room}/**/*.py", allowed=CHILD_MAY_IMPORT) == []


def test_metrics_that_the_child_uses_need_numpy_only() -> None:
    assert offenders("evaluation/metrics.py", allowed={"numpy", "atft_pipeline"}) == []


def test_feature_groups_do_not_import_each_other() -> None:
    shared = {"group", "catalog"}
    groups = {path.stem for path in ROOT.glob("features/*.py")} - shared - {"__init__"}
    declared = {
        path.stem
        for path in ROOT.glob("features/*.py")
        if path.stem in groups and any(_named(node, "GROUP") for node in ast.parse(path.read_text()).body)
    }
    crossing = [
        f"features/{path.stem}:{line} imports {module}"
        for path in ROOT.glob("features/*.py")
        if path.stem in declared
        for line, module in imports(path)
        if module.startswith("atft_pipeline.features.") and module.rsplit(".", 1)[1] in declared - {path.stem}
    ]
    assert declared and crossing == []


def test_features_do_no_input_or_output() -> None:
    assert offenders("features/*.py", forbidden={"pyarrow", "duckdb", "requests", "os"}) == []
    readers = [
        f"{path.stem}:{node.lineno}"
        for path in ROOT.glob("features/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and called(node) in {"read_parquet", "scan_parquet", "write_parquet", "open"}
    ]
    assert readers == []


def test_compiled_kernels_live_behind_the_operators_only() -> None:
    assert [line for line in offenders("**/*.py", forbidden={"numba"}) if "operators.py" not in line] == []


def test_only_the_evaluation_reads_the_oracle() -> None:
    rooms = {"features", "dataset", "model", "training", "panel", "jquants", "lake"}
    readers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.glob("**/*.py")
        if path.parent.name in rooms
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "oracle/" in node.value
    ]
    importers = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in ROOT.glob("**/*.py")
        for line, module in imports(path)
        if module.endswith(".oracle") and path.parent.name not in {"exchange", "evaluation"}
    ]
    assert readers == [] and importers == []


def test_importing_the_definitions_is_light() -> None:
    script = (
        "import sys, atft_pipeline.definitions; print([m for m in ('torch', 'torch_geometric') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip().endswith("[]")


def test_no_exception_is_swallowed_and_no_stub_is_left() -> None:
    swallowed = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.glob("**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    stubs = [str(path) for path in ROOT.glob("**/*.py") if "NotImplementedError" in path.read_text()]
    assert swallowed == [] and stubs == []


def called(node: ast.Call) -> str:
    """The name under which something is called: `open` for open(...) and for path.open(...)."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _named(node: ast.stmt, name: str) -> bool:
    """Whether the statement assigns to `name`."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
