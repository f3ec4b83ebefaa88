"""Row rules of the tables about prices and listings: calendar, master, bars, indices, derivatives."""

from __future__ import annotations

import polars as pl

from atft_pipeline.jquants.checks.rule import FEW, Rule, any_of, differs, number, range_broken, unknown
from atft_pipeline.panel.ids import MARGIN_IDS, MARKET_IDS, SECTOR33_IDS

_TRADED = ("O", "H", "L", "C", "Vo", "Va")
_ROUNDING = 0.05
"""Adjusted prices are delivered to one decimal."""

CALENDAR_RULES = (
    Rule(
        "division_known",
        "HolDiv is 0, 1, 2 or 3",
        "An unknown division would drop or invent a trading day.",
        ("HolDiv",),
        unknown("HolDiv", "0123"),
    ),
)

MASTER_RULES = (
    Rule(
        "markets_known",
        "Mkt is a market that the panel knows",
        "A new segment becomes 'unknown' in the panel: a missing category, nothing wrong.",
        ("Mkt",),
        unknown("Mkt", MARKET_IDS),
        "warn",
    ),
    Rule(
        "sectors_known",
        "S33 is one of the 33 sectors or 9999",
        "A new sector becomes 'unknown' in the panel: a missing category, nothing wrong.",
        ("S33",),
        unknown("S33", SECTOR33_IDS),
        "warn",
    ),
    Rule(
        "margin_class_known",
        "Mrgn is 1, 2 or 3",
        "Another class counts as not loanable.",
        ("Mrgn",),
        unknown("Mrgn", MARGIN_IDS),
        "warn",
    ),
)


def _adjusted_off() -> pl.Expr:
    """Adj* must be one multiple of the raw prices: AdjO = O * (AdjC / C), to the rounding of both."""
    ratio = number("AdjC") / number("C")
    prices = [
        differs(number(f"Adj{p}"), number(p) * ratio, _ROUNDING * (1 + number(p) / number("C")) + 1e-9 * number(p))
        for p in "OHL"
    ]
    volume = number("Vo") / ratio
    # AdjC carries up to 0.05 of rounding, which the division passes on in proportion.
    slack = 1.0 + volume * 1.1 * _ROUNDING / pl.max_horizontal(number("AdjC"), pl.lit(_ROUNDING))
    return any_of(*prices, differs(number("AdjVo"), volume, slack))


BARS_RULES = (
    Rule(
        "prices_ordered",
        "L <= O, C <= H",
        "Ranges, candles and volatilities would be wrong.",
        ("O", "H", "L", "C"),
        range_broken("O", "H", "L", "C"),
        allowed=FEW,
    ),
    Rule(
        "nulls_together",
        "O, H, L, C, Vo and Va are all there (Vo > 0) or all null",
        "A no-trade day is null in all of them; a half-null row would pass for a traded one.",
        _TRADED,
        any_of(
            pl.sum_horizontal(*(pl.col(name).is_null().cast(pl.Int8) for name in _TRADED)).is_between(1, 5),
            number("Vo") <= 0,
            number("C") <= 0,
        ),
        allowed=FEW,
    ),
    Rule(
        "value_within_prices",
        "L * Vo <= Va <= H * Vo",
        "The volume-weighted price would lie outside the day's range; volumes or values are in another unit.",
        ("H", "L", "Vo", "Va"),
        any_of(
            number("Va") < number("L") * number("Vo") * (1 - 1e-6) - 1,
            number("Va") > number("H") * number("Vo") * (1 + 1e-6) + 1,
        ),
        allowed=1e-3,
    ),
    Rule(
        "factor_positive",
        "AdjFactor is a positive number",
        "Adjusted prices are raw prices over the product of factors: a zero or missing one destroys the history.",
        ("AdjFactor",),
        number("AdjFactor").is_null() | (number("AdjFactor") <= 0),
    ),
    Rule(
        "adjusted_follow_raw",
        "AdjO, AdjH, AdjL are O, H, L times AdjC / C, and AdjVo is Vo over it, to rounding",
        "Only a warning: the pipeline adjusts by itself and never reads these columns; a break hints at mixed columns.",
        (*_TRADED[:5], "AdjO", "AdjH", "AdjL", "AdjC", "AdjVo"),
        _adjusted_off(),
        "warn",
    ),
    Rule(
        "flags_known",
        "UL and LL are 0 or 1, ExRT is 1, 2, 3 or null",
        "Only a warning: an unknown flag counts as not set.",
        ("UL", "LL", "ExRT"),
        any_of(unknown("UL", "01"), unknown("LL", "01"), unknown("ExRT", "123")),
        "warn",
    ),
)

INDEX_RULES = (
    Rule(
        "prices_ordered",
        "L <= O, C <= H where they are given",
        "Index returns and ranges would be wrong.",
        ("O", "H", "L", "C"),
        range_broken("O", "H", "L", "C"),
        allowed=FEW,
    ),
    Rule(
        "close_positive",
        "C is above zero where it is given",
        "Returns divide by it.",
        ("C",),
        number("C") <= 0,
    ),
)


def _session(prefix: str) -> pl.Expr:
    """Range of one session of a derivative; no trade is 0 (or blank) in all four."""
    names = [f"{prefix}{p}" for p in "OHLC"]
    return pl.when(number(names[0]) > 0).then(range_broken(*names))


_DERIVATIVE_RULES = (
    Rule(
        "prices_ordered",
        "L <= O, C <= H in the whole day and in each session, where there was a trade",
        "Ranges would be wrong.",
        tuple(f"{session}{p}" for session in ("", "E", "A") for p in "OHLC"),
        any_of(_session(""), _session("E"), _session("A")),
        allowed=1e-4,
    ),
    Rule(
        "amounts_not_negative",
        "Vo, OI and Va are not negative",
        "Open interest and volume ratios would be wrong.",
        ("Vo", "OI", "Va"),
        any_of(*(number(name) < 0 for name in ("Vo", "OI", "Va"))),
    ),
    Rule(
        "margin_division_known",
        "EmMrgnTrgDiv is 001 or 002",
        "Emergency rows repeat a contract of the day: another code would count it twice.",
        ("EmMrgnTrgDiv",),
        unknown("EmMrgnTrgDiv", ("001", "002")),
    ),
)

FUTURES_RULES = _DERIVATIVE_RULES

OPTIONS_225_RULES = (
    *_DERIVATIVE_RULES,
    Rule(
        "put_or_call",
        "PCDiv is 1 (put) or 2 (call) and Strike is above zero",
        "Skew and put-call ratios would mix the two sides.",
        ("PCDiv", "Strike"),
        any_of(unknown("PCDiv", "12"), ~(number("Strike") > 0)),
    ),
    Rule(
        "implied_volatility_sane",
        "IV is between 0 and 500 percent",
        "Beyond it the unit is wrong or the solver failed; volatility features average it.",
        ("IV",),
        any_of(number("IV") < 0, number("IV") > 500),
        allowed=1e-3,
    ),
    Rule(
        "implied_volatility_given",
        "IV is above zero",
        "Only a warning: far contracts have none and are left out of the surface.",
        ("IV",),
        number("IV").fill_null(0.0) <= 0,
        "warn",
        allowed=0.5,
    ),
    Rule(
        "underlying_positive",
        "UnderPx is above zero",
        "Moneyness divides by it.",
        ("UnderPx",),
        ~(number("UnderPx") > 0),
    ),
)
