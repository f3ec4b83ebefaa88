"""Row rules of the tables about who trades: investor types, margin balances, short selling, breakdown of trades.

All of them are sums that the exchange publishes with their parts, so the parts must add up.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from atft_pipeline.jquants.checks.rule import FEW, Rule, any_of, differs, number, total, unknown

INVESTORS = ["Ind", "Frgn", "SecCo", "InvTr", "BusCo", "OthCo", "InsCo", "Bank", "TrstBnk", "OthFin"]
FLOW_GROUPS = ["Prop", "Brk", "Tot", *INVESTORS]


def _columns(prefixes: Iterable[str], suffixes: str) -> tuple[str, ...]:
    return tuple(prefix + suffix for prefix in prefixes for suffix in suffixes.split())


_THOUSANDS = 1.5
"""Investor flows are in thousand yen, each rounded by itself: a sum of two may be off by one and a half."""

INVESTOR_TYPES_RULES = (
    Rule(
        "totals_add_up",
        "Tot = Sell + Buy in every group",
        "Shares of turnover would be wrong.",
        _columns(FLOW_GROUPS, "Sell Buy Tot"),
        any_of(*(differs(number(f"{g}Tot"), total((f"{g}Sell", f"{g}Buy")), _THOUSANDS) for g in FLOW_GROUPS)),
    ),
    Rule(
        "balances_add_up",
        "Bal = Buy - Sell in every group",
        "Net flows would have the wrong size or sign.",
        _columns(FLOW_GROUPS, "Sell Buy Bal"),
        any_of(*(differs(number(f"{g}Bal"), number(f"{g}Buy") - number(f"{g}Sell"), _THOUSANDS) for g in FLOW_GROUPS)),
    ),
    Rule(
        "brokerage_adds_up",
        "Brk is the sum of the ten investor groups, and Tot is Prop + Brk, for Sell and Buy",
        "Shares of the brokerage would not add up to one.",
        _columns(FLOW_GROUPS, "Sell Buy"),
        any_of(
            *(differs(number(f"Brk{side}"), total(f"{g}{side}" for g in INVESTORS), 6.0) for side in ("Sell", "Buy")),
            *(differs(number(f"Tot{side}"), total((f"Prop{side}", f"Brk{side}")), 2.0) for side in ("Sell", "Buy")),
        ),
    ),
    Rule(
        "amounts_not_negative",
        "Sell and Buy are not negative",
        "Shares of turnover would be wrong.",
        _columns(FLOW_GROUPS, "Sell Buy"),
        any_of(*(number(name) < 0 for name in _columns(FLOW_GROUPS, "Sell Buy"))),
    ),
    Rule(
        "published_after_the_week",
        "StDate <= EnDate < PubDate",
        "A week known before its end would be knowledge of the future.",
        ("PubDate", "StDate", "EnDate"),
        any_of(pl.col("StDate") > pl.col("EnDate"), pl.col("EnDate") >= pl.col("PubDate")),
    ),
)

_SIDES = ("Shrt", "Long")


def _parts(kinds: str, unit: str) -> pl.Expr:
    """Whether a side's total differs from negotiable plus standardised."""
    return any_of(
        *(differs(number(f"{side}{unit}"), total(f"{side}{kind}{unit}" for kind in kinds.split())) for side in _SIDES)
    )


_MARGIN_COLUMNS = ("", "Neg", "Std")

MARGIN_INTEREST_RULES = (
    Rule(
        "volumes_add_up",
        "ShrtVol = ShrtNegVol + ShrtStdVol, and the same for Long",
        "Balance features would mix the two kinds of margin trading.",
        tuple(f"{side}{kind}Vol" for side in _SIDES for kind in _MARGIN_COLUMNS),
        _parts("Neg Std", "Vol"),
        allowed=FEW,
    ),
    Rule(
        "values_add_up",
        "ShrtVal = ShrtNegVal + ShrtStdVal, and the same for Long, where values are given",
        "Only a warning: features use the volumes, and values are given since 2026-09-25 only.",
        tuple(f"{side}{kind}Val" for side in _SIDES for kind in _MARGIN_COLUMNS),
        _parts("Neg Std", "Val"),
        "warn",
    ),
    Rule(
        "volumes_not_negative",
        "Balances are not negative",
        "Long-short ratios would be wrong.",
        tuple(f"{side}{kind}Vol" for side in _SIDES for kind in _MARGIN_COLUMNS),
        any_of(*(number(f"{side}{kind}Vol") < 0 for side in _SIDES for kind in _MARGIN_COLUMNS)),
    ),
    Rule(
        "published_later",
        "PubDate is after Date where it is given",
        "A balance known on its own day would be knowledge of the future.",
        ("PubDate", "Date"),
        pl.col("PubDate") <= pl.col("Date"),
    ),
    Rule(
        "issue_type_known",
        "IssType is 1, 2 or 3",
        "Only a warning: the class comes from the list of issues.",
        ("IssType",),
        unknown("IssType", "123"),
        "warn",
    ),
)

MARGIN_ALERT_RULES = (
    Rule(
        "balances_add_up",
        "ShrtOut = ShrtNegOut + ShrtStdOut, and the same for Long",
        "Balance features would mix the two kinds of margin trading.",
        tuple(f"{side}{kind}Out" for side in _SIDES for kind in _MARGIN_COLUMNS),
        _parts("Neg Std", "Out"),
        allowed=1e-3,
    ),
    Rule(
        "published_later",
        "PubDate is not before AppDate",
        "A balance known before its day would be knowledge of the future.",
        ("PubDate", "AppDate"),
        pl.col("PubDate").cast(pl.String) < pl.col("AppDate").cast(pl.String),
    ),
    Rule(
        "balances_not_negative",
        "Balances are not negative",
        "Long-short ratios would be wrong.",
        tuple(f"{side}{kind}Out" for side in _SIDES for kind in _MARGIN_COLUMNS),
        any_of(*(number(f"{side}{kind}Out") < 0 for side in _SIDES for kind in _MARGIN_COLUMNS)),
    ),
    Rule(
        "regulation_known",
        "TSEMrgnRegCls is one of 001 to 006, 101, 102",
        "Only a warning: an unknown class counts as daily publication.",
        ("TSEMrgnRegCls",),
        unknown("TSEMrgnRegCls", ["001", "002", "003", "004", "005", "006", "101", "102"]),
        "warn",
    ),
)

_SHORT = ("SellExShortVa", "ShrtWithResVa", "ShrtNoResVa")

SHORT_RATIO_RULES = (
    Rule(
        "amounts_not_negative",
        "The three selling values are not negative",
        "The short ratio would leave 0 to 1.",
        _SHORT,
        any_of(*(number(name) < 0 for name in _SHORT)),
    ),
    Rule(
        "sellers_exist",
        "The three selling values are given and not all zero",
        "Only a warning: the ratio of such a row is null. Small markets have sectors without a trade.",
        _SHORT,
        ~(total(_SHORT).fill_null(0.0) > 0),
        "warn",
        allowed=0.05,
    ),
)

SHORT_SALE_REPORT_RULES = (
    Rule(
        "ratio_sane",
        "ShrtPosToSO is between 0 and 1",
        "The sum over reporters would be wrong: percent instead of a fraction, or a lost sign.",
        ("ShrtPosToSO",),
        any_of(number("ShrtPosToSO") < 0, number("ShrtPosToSO") > 1),
        allowed=FEW,
    ),
    Rule(
        "disclosed_after_calculation",
        "CalcDate <= DiscDate",
        "A position known before its day would be knowledge of the future.",
        ("CalcDate", "DiscDate"),
        pl.col("CalcDate") > pl.col("DiscDate"),
    ),
    Rule(
        "small_positions_are_exits",
        "A ratio below 0.5 % follows a report above it",
        "Only a warning: reporters may file voluntarily.",
        ("ShrtPosToSO", "PrevRptRatio"),
        (number("ShrtPosToSO") < 0.005 - 5e-5) & ~(number("PrevRptRatio").fill_null(0.0) >= 0.005 - 5e-5),
        "warn",
        allowed=0.02,
    ),
    Rule(
        "previous_is_earlier",
        "PrevRptDate is before CalcDate where it is given",
        "Only a warning: the chain of reports is rebuilt from CalcDate.",
        ("PrevRptDate", "CalcDate"),
        pl.col("PrevRptDate") > pl.col("CalcDate"),
        "warn",
        allowed=0.01,
    ),
)

_SELLS = ("LongSell", "ShrtNoMrgn", "MrgnSellNew", "MrgnSellClose")
_BUYS = ("LongBuy", "MrgnBuyNew", "MrgnBuyClose")
_LEGS = (*_SELLS, *_BUYS)

BREAKDOWN_RULES = (
    Rule(
        "sells_equal_buys",
        "The four selling legs add up to the three buying legs, in yen and in shares",
        "Every trade has both sides; shares of legs would be wrong.",
        _columns(_LEGS, "Va Vo"),
        any_of(
            *(
                differs(total(f"{leg}{unit}" for leg in _SELLS), total(f"{leg}{unit}" for leg in _BUYS), 1.0)
                for unit in ("Va", "Vo")
            )
        ),
        allowed=1e-4,
    ),
    Rule(
        "amounts_not_negative",
        "No leg is negative",
        "Shares of legs would leave 0 to 1.",
        _columns(_LEGS, "Va Vo"),
        any_of(*(number(name) < 0 for name in _columns(_LEGS, "Va Vo"))),
    ),
)
