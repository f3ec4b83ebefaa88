"""L1 on the source: no feature module shifts backwards, names a label, or imports what can."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import atft_pipeline.features
import atft_pipeline.panel

MODULES = sorted(Path(atft_pipeline.features.__path__[0]).glob("*.py"))
PANEL = sorted(Path(atft_pipeline.panel.__path__[0]).glob("*.py"))
SHIFTS = {"shift", "ts_lag", "lag", "roll", "diff", "pct_change"}
FORWARD = {"lead", "ts_lead", "shift_and_fill_next", "backward_fill", "bfill"}
LABEL_PREFIXES = ("target_", "feat_ret_", "fwd_", "label_")
DECLARES_LABELS = {"catalog.py", "reference.py"}
"""The catalogue declares the label columns of the dataset and the reference explains them; neither computes."""


def forward_looks(source: str, name: str = "") -> Iterator[str]:
    """What in the source could bring a later row to an earlier one, or a label among the features."""
    for node in ast.walk(ast.parse(source)):
        line = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if called in SHIFTS and any(_is_negative(value) for value in given):
                yield f"{line} {called} by a negative number"
            if called in FORWARD or any(k.arg == "strategy" and _is_text(k.value, "backward") for k in node.keywords):
                yield f"{line} {called} fills or reads from later rows"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(LABEL_PREFIXES) and name not in DECLARES_LABELS:
                yield f"{line} names the label {node.value}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            if any(n.startswith("atft_pipeline.dataset") for n in names):
                yield f"{line} imports from dataset/, where labels are made"


def _is_negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _is_text(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


@pytest.mark.parametrize("path", [*MODULES, *PANEL], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_module_reads_no_later_row(path: Path) -> None:
    assert list(forward_looks(path.read_text(encoding="utf-8"), path.name)) == []


@pytest.mark.parametrize(
    "fault",
    [
        "y = ts_lag(close, -5)",
        "y = pl.col('C').shift(-1)",
        "y = frame.shift(n=-1)",
        "y = np.roll(x, -1, axis=0)",
        "y = x.backward_fill()",
        "y = a.join_asof(b, strategy='backward') if False else b.join_asof(a, strategy='backward')",
        "yield 'target_ret_5d', x",
        "from atft_pipeline.dataset.labels import forward_returns",
    ],
)
def test_the_lint_fires_on_each_planted_fault(fault: str) -> None:
    wrapped = "def f():\n    " + fault
    assert list(forward_looks(wrapped, "planted.py"))


def test_clean_code_passes_the_lint() -> None:
    assert list(forward_looks("y = ts_lag(close, 5) - 1\nz = x.shift(1)", "clean.py")) == []
