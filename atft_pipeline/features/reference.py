"""The column reference, docs/columns.md: every dataset column as its declaration says it. After a change of a group:

python -m atft_pipeline.features.reference > docs/columns.md
"""

from __future__ import annotations

from collections.abc import Iterator

from atft_pipeline.features import catalog
from atft_pipeline.features.group import Column, Group
from atft_pipeline.settings import HORIZONS, PLANS

COMMAND = "python -m atft_pipeline.features.reference > docs/columns.md"

_KEYS = {
    "code": "five-character J-Quants code; letters occur (130A0)",
    "date": "trading day T on which the code is listed",
    "asof_ts": "knowledge time of the row: the close of T (15:00, from 2024-11-05 15:30, half days 11:30)",
    **{f"target_ret_{h}d": f"c[T+{h}]/c[T] - 1" for h in HORIZONS},
    **{f"target_up_{h}d": f"1 if target_ret_{h}d > 0 else 0" for h in HORIZONS},
}


def render() -> str:
    """The page as Markdown, with a newline at its end."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Columns"
    yield ""
    yield f"Generated from the catalogue: `{COMMAND}`. Do not edit by hand."
    yield ""
    yield (
        "A row of date T is knowledge at T's close. Windows count the code's listed rows (or records, where it says "
        "weeks), include T unless `prior`, skip nulls, and `60/45` is null below 45 observations. Any value is null "
        "when an input is null, unless the column says otherwise. c, o, h, l, v are adjusted by the splits up to T; "
        "U(T) is the universe of traded ordinary shares."
    )
    yield ""
    yield "| plan | groups | columns | model inputs |"
    yield "|---|---|---|---|"
    for plan in PLANS:
        groups = " ".join(group.name for group in catalog.groups(plan))
        columns, inputs = len(catalog.expected_columns(plan)), len(catalog.feature_columns(plan))
        yield f"| {plan} | {groups} | {columns} | {inputs} |"
    yield from _key_section()
    for group in catalog.GROUPS:
        yield from _section(group)


def _key_section() -> Iterator[str]:
    yield from ("", f"## `{catalog.KEY_GROUP}`: keys, knowledge time and labels, never model inputs", "")
    yield from ("Tables: bars_daily, calendar. Known: keys on T; labels need the rows after T.", "")
    yield from ("| column | type | formula | role |", "|---|---|---|---|")
    for entry in catalog.KEY_ENTRIES:
        yield f"| `{entry.name}` | {entry.dtype} | {_cell(_KEYS[entry.name])} | {entry.role} |"


def _section(group: Group) -> Iterator[str]:
    plan = next(plan for plan in PLANS if group in catalog.groups(plan))
    yield from ("", f"## `{group.name}`: {len(group.columns)} columns", "")
    yield f"Tables: {', '.join(group.tables)} (from the {plan} plan on). Known: {group.availability}."
    yield from ("", "| column | type | formula | window | nulls | scaled as |", "|---|---|---|---|---|---|")
    yield from (_row(column) for column in group.columns)


def _row(column: Column) -> str:
    kind = f"{column.kind}, spectral" if column.spectral else column.kind
    formula, window, nulls = (_cell(text) for text in (column.formula, column.window, column.nulls))
    return f"| `{column.name}` | {column.dtype} | {formula} | {window} | {nulls} | {kind} |"


def _cell(text: str) -> str:
    """Verbatim in a Markdown table cell: no emphasis, no column break."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


if __name__ == "__main__":
    print(render(), end="")
