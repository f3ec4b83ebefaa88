"""The dataset contract: which groups and columns exist under each plan, in order, derived from the group modules.

A group exists exactly when the plan delivers its tables. Key and label columns (group N) are declared here; every
feature is declared once, in its group module. Print the contract with

    python -m atft_pipeline.features.catalog --plan standard
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atft_pipeline.features import (
    balance_sheets,
    breadth,
    breakdown,
    calendar,
    dividends,
    earnings,
    events,
    exposure,
    flow,
    futures,
    liquidity,
    margin,
    margin_alerts,
    market,
    meta,
    neighbours,
    options,
    prices,
    ranks,
    returns,
    sector,
    sessions,
    short_selling,
    statements,
    technical,
    volatility,
)
from atft_pipeline.features.group import Column, Group
from atft_pipeline.settings import HORIZONS, PLANS

GROUPS: tuple[Group, ...] = (
    meta.GROUP,
    prices.GROUP,
    returns.GROUP,
    volatility.GROUP,
    technical.GROUP,
    liquidity.GROUP,
    events.GROUP,
    calendar.GROUP,
    ranks.GROUP,
    market.GROUP,
    exposure.GROUP,
    breadth.GROUP,
    sector.GROUP,
    flow.GROUP,
    margin.GROUP,
    margin_alerts.GROUP,
    short_selling.GROUP,
    statements.GROUP,
    earnings.GROUP,
    options.GROUP,
    neighbours.GROUP,
    breakdown.GROUP,
    sessions.GROUP,
    dividends.GROUP,
    futures.GROUP,
    balance_sheets.GROUP,
)
"""Feature groups in contract order."""

KEY_GROUP = "N"

_FREE = ("calendar", "master", "bars_daily", "fin_summary")
_LIGHT = (*_FREE, "topix", "investor_types", "earnings_date")
_STANDARD = (*_LIGHT, "indices", "margin_interest", "margin_alert", "short_ratio", "short_sale_report", "options_225")
_PREMIUM = (*_STANDARD, "breakdown", "fin_details", "dividend", "futures")
PLAN_TABLES = {"free": _FREE, "light": _LIGHT, "standard": _STANDARD, "premium": _PREMIUM}
"""The raw tables that each J-Quants plan delivers and this project reads."""

MARKET_WIDE_GROUPS = frozenset({"cal", "mkt", "idx", "opt", "fut"})
"""Groups whose columns have one value per date."""

WARM_UP_DAYS = 400
"""Trading days of quotes before the first row that is trusted. The longest window is 250; the rest lets recursive
means forget their start (after 400 rows ema60 keeps 2e-6 of its seed)."""

FORBIDDEN_INPUT = re.compile(r"^(target|feat_ret|fwd|label)_")
"""Names that no model input may have, whatever its declared role."""

SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class CatalogError(ValueError):
    """The catalogue or a request to it is wrong; the text names the columns and the remedy."""


@dataclass(frozen=True)
class Entry:
    """One dataset column: what it is, and how scaling treats it."""

    name: str
    group: str
    role: str
    """`key`, `label` or `feature`; only features may reach a model."""
    dtype: str
    kind: str = "none"
    spectral: bool = False
    market_wide: bool = False


def _key_entries() -> tuple[Entry, ...]:
    keys = (("code", "str"), ("date", "date"), ("asof_ts", "datetime"))
    returns_ahead = ((f"target_ret_{h}d", "f32") for h in HORIZONS)
    rises_ahead = ((f"target_up_{h}d", "i8") for h in (1, 5, 10, 20))
    return (
        *(Entry(name, KEY_GROUP, "key", dtype) for name, dtype in keys),
        *(Entry(name, KEY_GROUP, "label", dtype) for name, dtype in (*returns_ahead, *rises_ahead)),
    )


KEY_ENTRIES = _key_entries()
"""Keys, knowledge time and labels: in the dataset, never in the model."""


def _entry(group: Group, column: Column) -> Entry:
    return Entry(
        column.name,
        group.name,
        "feature",
        column.dtype,
        column.kind,
        column.spectral,
        group.name in MARKET_WIDE_GROUPS,
    )


def groups(plan: str) -> tuple[Group, ...]:
    """Feature groups whose tables the plan delivers, in contract order. Raises CatalogError on an unknown plan."""
    if plan not in PLAN_TABLES:
        raise CatalogError(f"unknown plan {plan!r}; use one of {', '.join(PLANS)}")
    delivered = set(PLAN_TABLES[plan])
    reach = PLANS.index(plan)
    return tuple(g for g in GROUPS if delivered.issuperset(g.tables) and PLANS.index(g.plan) <= reach)


def columns(plan: str) -> tuple[Entry, ...]:
    """Every dataset column of the plan, in contract order: keys, labels, then the groups' features."""
    return (*KEY_ENTRIES, *(_entry(group, column) for group in groups(plan) for column in group.columns))


def expected_columns(plan: str) -> tuple[str, ...]:
    """The dataset contract: exactly these names in this order."""
    return tuple(entry.name for entry in columns(plan))


def feature_columns(plan: str) -> tuple[str, ...]:
    """Names of the model inputs, in contract order."""
    return tuple(entry.name for entry in columns(plan) if entry.role == "feature")


def feature_index(plan: str) -> list[dict[str, object]]:
    """One JSON-ready mapping per dataset column: name, group, role, dtype, kind, spectral, market_wide."""
    return [dict(vars(entry)) for entry in columns(plan)]


def tables(plan: str) -> tuple[str, ...]:
    """Raw tables that the plan's groups read, in the order in which the plan lists them."""
    needed = {table for group in groups(plan) for table in group.tables}
    return tuple(table for table in PLAN_TABLES[plan] if table in needed)


def group_of(name: str) -> str:
    """The group of any catalogued column. Raises CatalogError on a name that no group declares."""
    if name not in _GROUP_OF:
        raise CatalogError(f"no group declares a column {name!r}; see python -m atft_pipeline.features.catalog")
    return _GROUP_OF[name]


def lookback(plan: str) -> int:
    """Longest declared window in panel rows over the plan's columns; a warm-up must not be shorter."""
    return max(window_rows(column.window) for group in groups(plan) for column in group.columns)


def window_rows(window: str) -> int:
    """Rows of a declared window: `60/45`, `240 lag`, `14`, `240 td`; 0 for none and for windows counted in weeks."""
    found = re.match(r"\d+", window)
    return int(found.group()) if found and not window.endswith("weeks") else 0


def missing_groups(columns_present: Iterable[str], plan: str) -> dict[str, tuple[str, ...]]:
    """Missing columns by group, in contract order; empty when every contract column is present."""
    present = set(columns_present)
    missing: dict[str, tuple[str, ...]] = {}
    for entry in columns(plan):
        if entry.name not in present:
            missing[entry.group] = (*missing.get(entry.group, ()), entry.name)
    return missing


def describe_missing(missing: dict[str, tuple[str, ...]], plan: str) -> str:
    """Each group with its missing and declared counts, for an error: `sec 26 of 26, fs 2 of 26 (fs_valid, ...)`."""
    declared = [entry.group for entry in columns(plan)]
    parts = []
    for group, names in missing.items():
        total = declared.count(group)
        named = "" if len(names) == total else f" ({', '.join(names)})"
        parts.append(f"{group} {len(names)} of {total}{named}")
    return ", ".join(parts)


def select_features(path: Path | None, plan: str) -> tuple[str, ...]:
    """Model inputs: all of the plan's features, or those that `path` lists, in contract order.

    The file (SELECTED_FEATURES_JSON) holds {"selected_features": [names]}. Raises CatalogError when it is unreadable
    or when a name is unknown, forbidden or repeated; the text groups the names by feature group.
    """
    available = feature_columns(plan)
    if path is None:
        return available
    selected = _read_selection(path)
    problems = _selection_problems(selected, plan)
    if problems:
        raise CatalogError(f"{path}: " + "; ".join(problems))
    chosen = set(selected)
    return tuple(name for name in available if name in chosen)


def _read_selection(path: Path) -> list[str]:
    shape = 'it must hold {"selected_features": ["ret_1d", ...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: cannot read the selected features ({error}); {shape}") from error
    selected = content.get("selected_features") if isinstance(content, dict) else None
    if not isinstance(selected, list) or not all(isinstance(name, str) for name in selected):
        raise CatalogError(f"{path}: no list of names under selected_features; {shape}")
    if not selected:
        raise CatalogError(f"{path}: selected_features is empty; list at least one feature, or unset the setting")
    return selected


def _selection_problems(selected: Sequence[str], plan: str) -> list[str]:
    roles = {entry.name: entry.role for entry in columns(plan)}
    unique = list(dict.fromkeys(selected))
    forbidden = [n for n in unique if FORBIDDEN_INPUT.match(n) or roles.get(n, "feature") != "feature"]
    unknown = [n for n in unique if n not in roles and n not in forbidden]
    repeated = [n for n in unique if selected.count(n) > 1]
    reasons = (
        (forbidden, "keys, labels and future returns are no model inputs"),
        (unknown, f"not among the columns of the {plan} plan"),
        (repeated, "listed more than once"),
    )
    return [f"{reason}: {_by_group(names)}" for names, reason in reasons if names]


def _by_group(names: Sequence[str]) -> str:
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(_GROUP_OF.get(name, "no group"), []).append(name)
    return ", ".join(f"{group}: {' '.join(members)}" for group, members in grouped.items())


def check_names(entries: Sequence[Entry]) -> None:
    """Raise CatalogError unless all names are unique and snake_case and no feature has a forbidden name."""
    names = [entry.name for entry in entries]
    repeated = sorted({name for name in names if names.count(name) > 1})
    malformed = [name for name in names if not SNAKE_CASE.fullmatch(name)]
    forbidden = [entry.name for entry in entries if entry.role == "feature" and FORBIDDEN_INPUT.match(entry.name)]
    for found, problem in ((repeated, "declared twice"), (malformed, "not snake_case"), (forbidden, "forbidden")):
        if found:
            raise CatalogError(f"columns {problem}: {', '.join(found)}; rename them in their group modules")


_ALL = (*KEY_ENTRIES, *(_entry(group, column) for group in GROUPS for column in group.columns))
check_names(_ALL)
_GROUP_OF = {entry.name: entry.group for entry in _ALL}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one tab-separated line per column of a plan: name, group, role, dtype."""
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.features.catalog", description=main.__doc__)
    parser.add_argument("--plan", default="standard", help=f"one of {', '.join(PLANS)} (default: standard)")
    options = parser.parse_args(arguments)
    try:
        entries = columns(options.plan)
    except CatalogError as error:
        parser.error(str(error))
    for entry in entries:
        print(entry.name, entry.group, entry.role, entry.dtype, sep="\t")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
