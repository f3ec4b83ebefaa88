"""Checks of the dataset's values: keys, rows per date, nulls, dead columns, ranges, identities, too-good features.

Each returns a `Verdict`; `check_quality` runs them all. They read the written files, never a frame in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from atft_pipeline.dataset.assemble import audits
from atft_pipeline.dataset.contract import KEYS, Contract, check_dataset, check_names, dataset_years
from atft_pipeline.lake.store import read_table
from atft_pipeline.panel.axes import Axes
from atft_pipeline.settings import Thresholds
from atft_pipeline.verdict import Verdict

WARM_UP_ROWS = 260
"""Closes that a stock needs before its nulls count: the longest window is 250 rows."""

NULL_BUDGET: Mapping[str, float] = {
    "meta": 0.97, "px": 0.97, "ret": 0.97, "vol": 0.97, "ta": 0.97, "liq": 0.97, "evt": 0.97, "cal": 1.0, "xs": 0.95,
    "mkt": 1.0, "mb": 0.95, "idx": 1.0, "sec": 0.98, "flow": 0.98, "wm": 0.85, "dm": 0.01, "ss": 0.97, "fs": 0.85,
    "ev": 0.97, "gr": 0.90, "bd": 0.97,
    "opt": 0.98, "ses": 0.95, "div": 0.80, "fut": 0.98, "bs": 0.60,
}  # fmt: skip
"""Smallest coverage of a group after warm-up (median over its columns), on traded shares of the universe."""

MIN_YEAR_ROWS = 1_000
"""Rows after warm-up that a year needs before its coverage is judged by itself."""

COLUMN_FLOOR = 0.3
"""Smallest coverage of any one column, so that a broken one cannot hide behind its group's median."""
_LISTED_BALANCES = (
    "dm_long_to_adv20 dm_short_to_adv20 dm_net_to_adv20 dm_short_long_log dm_imbalance dm_long_chg_1d dm_short_chg_1d "
    "dm_net_chg_5d dm_long_to_listed dm_short_to_listed"
)
SPARSE = frozenset({"meta_listing_age_td", "div_growth_yoy", *_LISTED_BALANCES.split()})
"""Null by design for most stocks: the listing day lies before our history; few names have daily margin balances;
dividends of two years are compared, and a short history has few."""

YEAR_ON_YEAR = frozenset({"fs_sales_ttm_yoy", "fs_op_ttm_yoy", "fs_op_margin_ttm_chg"})
"""They compare four quarters with the four before, so of a history of two years (plan Free) less than half has them:
their floor is half of the others'."""

SECTOR_MEMBERS = 8
"""Traded members that a sector needs before nulls of its aggregates count: they ask for five others over a window,
which a small market's sectors do not always have."""
SECTOR_RANK, RANKED_SECTORS = "sec33_rank_", 20
"""Ranks of sectors ask for this many of them on the date."""

RANGES: tuple[tuple[str, float, float], ...] = (
    (r"^px_(open|high|low|close)$", 1e-9, np.inf),
    (r"^px_(volume|turnover)$", 0.0, np.inf),
    (r"^ret_(\d+d|overnight|intraday)$", -1.0, np.inf),
    (r"^vol_|^range_hl|^mkt_vol_(cc|yz)|natr", 0.0, np.inf),
    (r"_rsi_", 0.0, 100.0),
    (r"^sec(33|17)_(rank|pct)_|^flow_\w+_share$|_breadth_|_adv_ratio", 0.0, 1.0),
    (r"^flow_\w+_net_(ratio|sum4)$", -1.0, 1.0),
    (r"^(wm|dm)_imbalance$", -1.0, 1.0),
    (r"^wm_std_share_|^ss_(sec_ratio|sec_restricted_share|mkt_ratio)$|^ssp_hhi$|^bd_\w+_share$", 0.0, 1.0),
    (r"^ssp_(ratio_sum|top_ratio|reporter_cnt|days_to_cover)$|^dm_spell_td$", 0.0, np.inf),
    (r"^dm_reg_level$", 0.0, 7.0),
    (r"^bd_(margin_long_net|margin_short_net|cash_net)$", -1.0, 1.0),
    (r"^xs_(rank|pct)", 0.0, 1.0),
    (r"^brd_(gt_sma|avg_corr)_|^idx_sector_gt_|^gr_(clustering$|peer_corr_)", 0.0, 1.0),
    (r"^mb_corr_|^brd_high_low_", -1.0, 1.0),
    (r"^gr_(degree|strength)$|^mb_(resid_vol|idio_vol)_|^(idx_sector|brd)_disp_", 0.0, np.inf),
    (r"^opt_iv_atm|^fut_nkvi_front$|^ses_am_vol_share$|^div_yield|^div_next_yield$", 0.0, np.inf),
    (r"^div_(rev|growth_yoy)$|^bs_(inventory_yoy|asset_growth_yoy)$", -2.0, 2.0),
    (r"_close_loc$|^ses_am_limit$", -1.0, 1.0),
    (r"^bs_(debt|ppe|goodwill|intangible)_to_assets$", 0.0, np.inf),
    (r"_valid$|_is_|_flag_|^target_up", -1.0, 1.0),
    (r"^cal_dow$", 0.0, 4.0),
    (r"^cal_month$", 1.0, 12.0),
    (r"^meta_market_id$", -1.0, 10.0),
    (r"^meta_sector33_id$", -1.0, 34.0),
    (r"^meta_sector17_id$", -1.0, 18.0),
    (r"staleness_td$|_td_since$", 0.0, np.inf),
    (r"^ev_td_since_earn$", 0.0, 250.0),
    (r"^ev_td_to_exp_earn$", -20.0, 120.0),
)
"""(names, smallest, largest) that a known value may take."""


@dataclass(frozen=True)
class Identity:
    """Columns that must agree wherever all are known."""

    name: str
    columns: tuple[str, ...]
    difference: Callable[..., pl.Expr]
    tolerance: float


IDENTITIES = (
    Identity(
        "(1 + overnight)(1 + intraday) = 1 + ret_1d",
        ("ret_overnight", "ret_intraday", "ret_1d"),
        lambda on, intra, ret: (1 + on) * (1 + intra) - 1 - ret,
        1e-4,
    ),
    Identity(
        "ta_macd_hist_pct = ta_macd_pct - ta_macd_signal_pct",
        ("ta_macd_pct", "ta_macd_signal_pct", "ta_macd_hist_pct"),
        lambda line, signal, hist: line - signal - hist,
        1e-4,
    ),
    Identity(
        "sec33_mkt_rel_5d = sec33_ret_5d - mkt_ret_5d",
        ("sec33_ret_5d", "mkt_ret_5d", "sec33_mkt_rel_5d"),
        lambda sector, market, rel: sector - market - rel,
        1e-4,
    ),
    Identity(
        "mb_rel_ret_5d = ret_5d - mkt_ret_5d",
        ("ret_5d", "mkt_ret_5d", "mb_rel_ret_5d"),
        lambda own, market, rel: own - market - rel,
        1e-4,
    ),
    Identity(
        "gr_rel_peer_ret_5d = ret_5d - gr_peer_ret_5d",
        ("ret_5d", "gr_peer_ret_5d", "gr_rel_peer_ret_5d"),
        lambda own, peers, rel: own - peers - rel,
        1e-4,
    ),
    Identity(
        "bd_cash_net + bd_margin_long_net - bd_margin_short_net = bd_inst_short_share",
        ("bd_cash_net", "bd_margin_long_net", "bd_margin_short_net", "bd_inst_short_share"),
        lambda cash, long_net, short_net, shorted: cash + long_net - short_net - shorted,
        1e-4,
    ),
)


def read_columns(lake: Path, contract: Contract, names: tuple[str, ...]) -> pl.DataFrame:
    """Columns of the whole verified dataset, rows in spine order."""
    return pl.concat([read_table(path, names) for path in dataset_years(lake, contract)])


def check_keys(lake: Path, contract: Contract) -> Verdict:
    """(code, date) is unique and never null in the written files."""
    keys = read_columns(lake, contract, KEYS)
    repeated = int(keys.height - keys.n_unique())
    nulls = sum(keys.null_count().row(0))
    message = f"{keys.height:,} rows, {repeated} repeated keys, {nulls} null keys"
    return Verdict(repeated == 0 and nulls == 0, repeated + nulls, 0, message, {"rows": keys.height})


def check_rows_per_date(lake: Path, contract: Contract, axes: Axes, thresholds: Thresholds) -> Verdict:
    """Every date of the panel has as many rows as listed issues, within 5 %."""
    rows = read_columns(lake, contract, ("date",)).group_by("date").len().sort("date")
    have = dict(zip(rows["date"].to_list(), rows["len"].to_list(), strict=True))
    listed = dict(zip(axes.dates.astype("datetime64[D]").tolist(), axes.listed.sum(axis=1).tolist(), strict=True))
    gaps = {day: abs(have.get(day, 0) / max(count, 1) - 1) for day, count in listed.items()}
    worst = max(gaps, key=lambda day: gaps[day])
    message = f"largest difference {gaps[worst]:.1%} on {worst}: {have.get(worst, 0)} rows, {listed[worst]} listed"
    want = thresholds.rows_per_date_tolerance
    return Verdict(gaps[worst] <= want, gaps[worst], want, message, {"dates": len(listed)})


def check_nulls(lake: Path, contract: Contract) -> Verdict:
    """Coverage after warm-up: each group within its budget, in total and every year, each column above the floor."""
    columns, rows = column_coverage(lake, contract)
    coverage = {group: float(np.median(list(shares.values()))) for group, shares in columns.items()}
    margins = {group: share - NULL_BUDGET[group] for group, share in coverage.items()}
    worst = min(margins, key=lambda group: margins[group]) if margins else ""
    short = [f"{g} {coverage[g]:.1%} (want {NULL_BUDGET[g]:.0%})" for g, margin in margins.items() if margin < 0]
    every = {name: share for shares in columns.values() for name, share in shares.items()}
    floors = {name: COLUMN_FLOOR / (2 if name in YEAR_ON_YEAR else 1) for name in every if name not in SPARSE}
    short += [f"column {n} {every[n]:.1%} (want {floor:.0%})" for n, floor in floors.items() if every[n] < floor]
    short += [
        f"{group} in {year} {share:.1%} (want {NULL_BUDGET[group]:.0%})"
        for (group, year), share in yearly_coverage(lake, contract).items()
        if share < NULL_BUDGET[group] and coverage[group] >= NULL_BUDGET[group]
    ]
    message = f"{rows:,} rows after warm-up; " + (
        f"coverage below budget: {', '.join(short)}" if short else f"tightest group {worst or 'none'}"
    )
    got, want = (coverage[worst], NULL_BUDGET[worst]) if worst else (1.0, 1.0)
    return Verdict(not short, got, want, message, {"coverage": coverage, "rows": rows})


def column_coverage(lake: Path, contract: Contract) -> tuple[dict[str, dict[str, float]], int]:
    """Group -> column -> share of known values after warm-up, and the number of rows that count."""
    ripe = _ripe_rows(read_columns(lake, contract, _mask_columns(contract)))
    found: dict[str, dict[str, float]] = {}
    for group in NULL_BUDGET if ripe.any() else ():
        names = tuple(c.name for c in contract.group(group))
        if not names:
            continue
        if "sec33_member_cnt" in names:
            found[group] = _sector_coverage(lake, contract, names, ripe)
            continue
        frame = read_columns(lake, contract, names).filter(ripe)
        if frame.height:
            found[group] = _known_shares(frame)
    return {group: shares for group, shares in found.items() if shares}, int(ripe.sum())


def _known_shares(frame: pl.DataFrame) -> dict[str, float]:
    """Column -> share of known values; nothing for no rows."""
    nulls = frame.null_count().row(0) if frame.height else ()
    return {name: 1 - count / frame.height for name, count in zip(frame.columns, nulls, strict=False)}


def _sector_coverage(
    lake: Path, contract: Contract, names: tuple[str, ...], ripe: NDArray[np.bool_]
) -> dict[str, float]:
    """Column -> share of known values in sectors that have enough members; for ranks of sectors, on dates that have
    enough such sectors. A rank that no date of a small market can have is left out."""
    state = ("date", "meta_sector33_id")
    frame = read_columns(lake, contract, tuple(dict.fromkeys((*state, *names)))).filter(ripe)
    frame = frame.filter(pl.col("sec33_member_cnt") >= SECTOR_MEMBERS)
    ranks = [name for name in names if name.startswith(SECTOR_RANK)]
    counted = frame.filter(pl.col(state[1]).n_unique().over("date") >= RANKED_SECTORS)
    shares = _known_shares(frame.select(names)) | _known_shares(counted.select(ranks))
    return {name: shares[name] for name in names if name in shares and (name not in ranks or counted.height)}


def yearly_coverage(lake: Path, contract: Contract) -> dict[tuple[str, str], float]:
    """(group, year) -> median share of known values after warm-up, for years with enough such rows to judge."""
    found: dict[tuple[str, str], float] = {}
    for path in dataset_years(lake, contract):
        ripe = _ripe_rows(read_table(path, _mask_columns(contract)))
        if int(ripe.sum()) < MIN_YEAR_ROWS:
            continue
        for group in NULL_BUDGET:
            names = tuple(c.name for c in contract.group(group))
            if not names:
                continue
            frame = read_table(path, names).filter(ripe)
            if "sec33_member_cnt" in names:
                frame = frame.filter(pl.col("sec33_member_cnt") >= SECTOR_MEMBERS)
            if frame.height:
                nulls = frame.null_count().row(0)
                found[group, path.stem] = float(np.median([1 - n / frame.height for n in nulls]))
    return found


def null_shares(lake: Path, contract: Contract) -> tuple[list[str], dict[str, list[float]]]:
    """Years, and per group the share of nulls in each, over all rows; from the files' footers, no value is read."""
    paths = dataset_years(lake, contract)
    shares: dict[str, list[float]] = {group: [] for group in contract.groups}
    for path in paths:
        footer = pq.read_metadata(path)
        nulls = dict.fromkeys(contract.names, 0)
        for i in range(footer.num_row_groups):
            for j in range(footer.num_columns):
                chunk = footer.row_group(i).column(j)
                nulls[chunk.path_in_schema] += chunk.statistics.null_count if chunk.statistics else 0
        for group in shares:
            own = [nulls[c.name] for c in contract.group(group)]
            shares[group].append(sum(own) / max(len(own) * footer.num_rows, 1))
    return [path.stem for path in paths], shares


def check_dead_columns(lake: Path, contract: Contract) -> Verdict:
    """No input is null throughout; no number is constant (a flag or category may be, and is listed)."""
    empty: list[str] = []
    constant: list[str] = []
    quiet: list[str] = []
    for group in contract.groups:
        columns = [c for c in contract.group(group) if c.role == "feature"]
        if not columns:
            continue
        frame = read_columns(lake, contract, tuple(c.name for c in columns))
        for column in columns:
            series = frame[column.name]
            if series.null_count() == series.len():
                empty.append(column.name)
            elif series.min() == series.max():
                (quiet if column.kind in ("flag", "category", "time") else constant).append(column.name)
    dead = empty + constant
    message = "every input has values and varies"
    if dead:
        message = f"all null: {', '.join(empty) or 'none'}; constant: {', '.join(constant) or 'none'}"
    return Verdict(not dead, len(dead), 0, message, {"unchanging_flags": ", ".join(quiet)})


def check_ranges(lake: Path, contract: Contract) -> Verdict:
    """Known values lie where their meaning says."""
    rules = [(c.name, low, high) for c in contract.columns for p, low, high in RANGES if re.search(p, c.name)]
    problems = []
    if rules:
        names = tuple(dict.fromkeys(name for name, _, _ in rules))
        frame = read_columns(lake, contract, names)
        for name, low, high in rules:
            values = frame[name].cast(pl.Float64).drop_nulls().to_numpy()
            if values.size and (values.min() < low or values.max() > high):
                problems.append(f"{name} {values.min():g}..{values.max():g} (want {low:g}..{high:g})")
    message = f"out of range: {'; '.join(problems)}" if problems else f"{len(rules)} range rules hold"
    return Verdict(not problems, len(problems), 0, message, {"rules": len(rules)})


def check_identities(lake: Path, contract: Contract) -> Verdict:
    """Columns with a known relation satisfy it, on more than zero rows."""
    broken, inspected = [], {}
    for identity in IDENTITIES:
        if not set(identity.columns) <= set(contract.names):
            continue
        frame = read_columns(lake, contract, identity.columns).drop_nulls()
        gap = frame.select(identity.difference(*(pl.col(c).cast(pl.Float64) for c in identity.columns)).abs().max())
        largest = float(gap.item() or 0.0)
        inspected[identity.name] = frame.height
        if largest > identity.tolerance or frame.height == 0:
            broken.append(f"{identity.name}: off by {largest:.2g} over {frame.height:,} rows")
    message = "; ".join(broken) if broken else f"{len(inspected)} identities hold"
    return Verdict(not broken, len(broken), 0, message, {"rows": inspected})


def check_availability(lake: Path, contract: Contract) -> Verdict:
    """Every as-of join inspected rows, none used a row from the future, and there was at least one such join."""
    found = audits(lake, contract)
    empty = [group for group, audit in found.items() if not int(audit.get("rows_inspected", 0))]
    late = [group for group, audit in found.items() if int(audit.get("violations", 0))]
    rows = sum(int(audit.get("rows_inspected", 0)) for audit in found.values())
    message = f"{rows:,} joined values inspected in {len(found)} groups; none was used before it was available"
    if empty or late:
        message = f"as-of joins: nothing inspected in {empty or 'none'}, used too early in {late or 'none'}"
    elif not rows:
        message = "no group stored the account of an as-of join; materialise the feature groups again"
    details: dict[str, object] = {"audits": found}
    return Verdict(rows > 0 and not empty and not late, rows, 1, message, details)


def check_quality(lake: Path, contract: Contract, axes: Axes, thresholds: Thresholds) -> dict[str, Verdict]:
    """Every check but the too-good scan (`leak_scan.py`), by name."""
    return {
        "columns": check_dataset(lake, contract),
        "names": check_names(contract),
        "keys": check_keys(lake, contract),
        "rows_per_date": check_rows_per_date(lake, contract, axes, thresholds),
        "nulls": check_nulls(lake, contract),
        "dead_columns": check_dead_columns(lake, contract),
        "ranges": check_ranges(lake, contract),
        "identities": check_identities(lake, contract),
        "availability": check_availability(lake, contract),
    }


def _mask_columns(contract: Contract) -> tuple[str, ...]:
    wanted = ("meta_history_td", "meta_is_traded", "meta_sector33_id")
    return tuple(name for name in wanted if name in contract.names) or KEYS


def _ripe_rows(state: pl.DataFrame) -> NDArray[np.bool_]:
    """Rows whose nulls count: a traded ordinary share with enough history."""
    ripe = np.ones(state.height, dtype=bool)
    if "meta_history_td" in state.columns:
        ripe &= (state["meta_history_td"].fill_null(0) > WARM_UP_ROWS).to_numpy()
    if "meta_is_traded" in state.columns:
        ripe &= (state["meta_is_traded"].fill_null(0) == 1).to_numpy()
    if "meta_sector33_id" in state.columns:
        ripe &= state["meta_sector33_id"].is_between(1, 33).fill_null(False).to_numpy()
    return ripe
