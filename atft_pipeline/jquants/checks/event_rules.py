"""Row rules of the tables about what companies disclose: statements, details, dividends, announcement dates."""

from __future__ import annotations

import polars as pl

from atft_pipeline.jquants.checks.rule import Rule, any_of, number, unknown

_PERIODS = ["1Q", "2Q", "3Q", "4Q", "5Q", "FY"]
_CLOCK = r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$"

_is_result = pl.col("DocType").str.contains("FinancialStatements")

FIN_SUMMARY_RULES = (
    Rule(
        "period_before_disclosure",
        "A statement's period ends on or before its disclosure",
        "A result known before its period is over would be knowledge of the future.",
        ("DiscDate", "CurPerEn", "DocType"),
        pl.when(_is_result).then(pl.col("CurPerEn") > pl.col("DiscDate")),
        allowed=1e-3,
    ),
    Rule(
        "period_in_order",
        "CurPerSt <= CurPerEn and CurFYSt <= CurFYEn",
        "Periods order the documents of a company.",
        ("CurPerSt", "CurPerEn", "CurFYSt", "CurFYEn"),
        any_of(pl.col("CurPerSt") > pl.col("CurPerEn"), pl.col("CurFYSt") > pl.col("CurFYEn")),
        allowed=1e-3,
    ),
    Rule(
        "time_readable",
        "DiscTime is HH:MM:SS",
        "The time decides from which day on a document is known; an unreadable one must not pass for midnight.",
        ("DiscTime",),
        ~pl.col("DiscTime").str.contains(_CLOCK),
    ),
    Rule(
        "period_type_known",
        "CurPerType is 1Q to 5Q or FY",
        "Only a warning: documents of an unknown period are left out.",
        ("CurPerType",),
        unknown("CurPerType", _PERIODS),
        "warn",
    ),
    Rule(
        "equity_ratio_sane",
        "EqAR is a fraction below 1.01",
        "Only a warning: a percent instead of a fraction would show in every row.",
        ("EqAR",),
        number("EqAR") > 1.01,
        "warn",
        allowed=1e-3,
    ),
)

FIN_DETAILS_RULES = (
    Rule(
        "time_readable",
        "DiscTime is HH:MM:SS",
        "The time decides from which day on a document is known.",
        ("DiscTime",),
        ~pl.col("DiscTime").str.contains(_CLOCK),
    ),
    Rule(
        "statement_not_empty",
        "FS holds labels and values",
        "Only a warning: such a document gives nulls.",
        ("FS",),
        pl.col("FS").cast(pl.String).is_in(["", "{}", "null"]) | pl.col("FS").is_null(),
        "warn",
        allowed=0.01,
    ),
)

DIVIDEND_RULES = (
    Rule(
        "codes_known",
        "StatCode is 1, 2 or 3; IFCode and FRCode are 1 or 2",
        "The chain of new, corrected and deleted notices decides which dividend counts.",
        ("StatCode", "IFCode", "FRCode"),
        any_of(unknown("StatCode", "123"), unknown("IFCode", "12"), unknown("FRCode", "12")),
    ),
    Rule(
        "corrections_name_their_notice",
        "A corrected or deleted notice (StatCode 2, 3) names it in CARefNo",
        "Without it the corrected notice would go on counting.",
        ("StatCode", "CARefNo"),
        pl.col("StatCode").is_in(["2", "3"]) & pl.col("CARefNo").fill_null("").str.strip_chars("- ").eq(""),
        allowed=0.01,
    ),
    Rule(
        "rate_not_negative",
        "DivRate is not negative",
        "Yields would be wrong.",
        ("DivRate",),
        number("DivRate") < 0,
    ),
    Rule(
        "ex_before_record",
        "ExDate is not after RecDate",
        "Only a warning: features use ExDate alone.",
        ("ExDate", "RecDate"),
        pl.col("ExDate").cast(pl.String).str.to_date("%Y-%m-%d", strict=False)
        > pl.col("RecDate").cast(pl.String).str.to_date("%Y-%m-%d", strict=False),
        "warn",
        allowed=0.001,
    ),
)

EARNINGS_DATE_RULES = (
    Rule(
        "quarter_known",
        "FQName is 1Q, 2Q, 3Q or FY",
        "Only a warning: features use the date alone.",
        ("FQName",),
        unknown("FQName", ["1Q", "2Q", "3Q", "FY"]),
        "warn",
    ),
    Rule(
        "scheduled_ahead",
        "SchDate is not before PubDate where it is decided",
        "Only a warning: a schedule published after its day tells nothing.",
        ("SchDate", "PubDate"),
        pl.col("SchDate") < pl.col("PubDate"),
        "warn",
        allowed=0.01,
    ),
)
