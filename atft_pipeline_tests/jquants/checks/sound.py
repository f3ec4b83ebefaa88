"""Small sound frames of every raw table, for tests to break: each obeys all row rules of its table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl

from atft_pipeline.jquants.checks.balance_rules import FLOW_GROUPS, INVESTORS
from atft_pipeline.panel.ids import SECTOR33_CODES

DAY = date(2024, 5, 14)
CODES = ["13010", "130A0", "72030", "99840"]
N = len(CODES)


def bars() -> pl.DataFrame:
    close = [3000.0, 455.0, None, 8123.0]
    scaled = [None if c is None else c / 2 for c in close]
    volume = [None if c is None else 1000.0 for c in close]
    return pl.DataFrame(
        {
            "Date": [DAY] * N, "Code": CODES, "O": close, "H": [c and c + 20 for c in close],
            "L": [c and c - 20 for c in close], "C": [c and c + 5 for c in close], "UL": ["0"] * N, "LL": ["0"] * N,
            "Vo": volume, "Va": [c and c * 1000 + 1234 for c in close], "AdjFactor": [1.0] * N,
            "AdjO": scaled, "AdjH": [c and c + 10 for c in scaled], "AdjL": [c and c - 10 for c in scaled],
            "AdjC": [c and c + 2.5 for c in scaled], "AdjVo": [v and v * 2 for v in volume],
            "MktCap": [None] * N, "ExRT": [None, "1", None, None],
        },
        schema_overrides={"MktCap": pl.Float64},
    )  # fmt: skip


def investor_types() -> pl.DataFrame:
    row: dict[str, object] = {
        "PubDate": DAY, "StDate": DAY - timedelta(days=8), "EnDate": DAY - timedelta(days=4), "Section": "TSEPrime"
    }  # fmt: skip
    flows = {group: (1000.0 + 7 * n, 900.0 + 11 * n) for n, group in enumerate(INVESTORS)}
    flows["Brk"] = (sum(sell for sell, _ in flows.values()), sum(buy for _, buy in flows.values()))
    flows["Prop"] = (500.0, 700.0)
    flows["Tot"] = (flows["Brk"][0] + 500.0, flows["Brk"][1] + 700.0)
    for group in FLOW_GROUPS:
        sell, buy = flows[group]
        row |= {f"{group}Sell": sell, f"{group}Buy": buy, f"{group}Tot": sell + buy, f"{group}Bal": buy - sell}
    return pl.DataFrame([row])


def margin_interest() -> pl.DataFrame:
    frame = pl.DataFrame({"PubDate": [None, DAY], "Date": [DAY - timedelta(days=1)] * 2, "Code": CODES[:2]})
    kinds = {"Neg": 2800.0, "Std": 1300.0, "": 4100.0}
    volumes = {f"{side}{kind}Vol": value for side in ("Shrt", "Long") for kind, value in kinds.items()}
    values = {name.replace("Vol", "Val"): [None, value * 100] for name, value in volumes.items()}
    return frame.with_columns(IssType=pl.lit("2"), **{k: pl.lit(v) for k, v in volumes.items()}).hstack(
        pl.DataFrame(values)
    )


def margin_alert() -> pl.DataFrame:
    kinds = {"": "4100", "Neg": "2800", "Std": "1300"}
    outs = {f"{side}{kind}Out": [value] * 2 for side in ("Shrt", "Long") for kind, value in kinds.items()}
    row = {"PubDate": [DAY] * 2, "Code": CODES[:2], "AppDate": [DAY - timedelta(days=1)] * 2}
    return pl.DataFrame({**row, **outs, "ShrtOutChg": ["-", "100"], "TSEMrgnRegCls": ["002", "102"]})


def breakdown() -> pl.DataFrame:
    sells = {"LongSell": 500.0, "ShrtNoMrgn": 200.0, "MrgnSellNew": 100.0, "MrgnSellClose": 58.0}
    buys = {"LongBuy": 600.0, "MrgnBuyNew": 200.0, "MrgnBuyClose": 58.0}
    legs = {f"{leg}{unit}": [v * scale] * 2 for leg, v in (sells | buys).items() for unit, scale in UNITS.items()}
    return pl.DataFrame({"Date": [DAY] * 2, "Code": CODES[:2], **legs})


UNITS = {"Vo": 1.0, "Va": 277.5}


def options() -> pl.DataFrame:
    sessions = {
        f"{s}{p}": [v, 0.0] for s in ("", "E", "A") for p, v in zip("OHLC", (50.0, 60.0, 45.0, 55.0), strict=True)
    }
    return pl.DataFrame(
        {
            "Date": [DAY] * 2, "Code": ["130060018", "140060018"], "EmMrgnTrgDiv": ["002"] * 2, **sessions,
            "Vo": [10.0, 0.0], "OI": [100.0, 3.0], "Va": [5e5, 0.0], "Strike": [38000.0] * 2, "PCDiv": ["1", "2"],
            "IV": [17.2, 21.0], "UnderPx": [38356.06] * 2,
        }
    )  # fmt: skip


def statements() -> pl.DataFrame:
    ends = [date(2023, 6, 30), date(2023, 9, 30), date(2023, 12, 31), date(2024, 3, 31)]
    return pl.DataFrame(
        {
            "DiscDate": [day + timedelta(days=40) for day in ends], "DiscTime": ["15:30:00"] * 4,
            "Code": ["13010"] * 4, "DiscNo": [f"2024000{n}" for n in range(4)],
            "DocType": [f"{q}FinancialStatements_Consolidated_JP" for q in ("1Q", "2Q", "3Q", "FY")],
            "CurPerType": ["1Q", "2Q", "3Q", "FY"], "CurPerSt": [date(2023, 4, 1)] * 4, "CurPerEn": ends,
            "CurFYSt": [date(2023, 4, 1)] * 4, "CurFYEn": [date(2024, 3, 31)] * 4,
            "Sales": [100.0, 220.0, 330.0, 460.0], "EqAR": [0.4] * 4,
        }
    )  # fmt: skip


SOUND: dict[str, Callable[[], pl.DataFrame]] = {
    "calendar": lambda: pl.DataFrame({"Date": [DAY], "HolDiv": ["1"]}),
    "master": lambda: pl.DataFrame(
        {"Date": [DAY] * N, "Code": CODES, "Mkt": ["0111"] * N, "S33": ["0050"] * N, "Mrgn": ["1"] * N}
    ),
    "bars_daily": bars,
    "topix": lambda: pl.DataFrame({"Date": [DAY], "O": [2700.0], "H": [2710.0], "L": [2690.5], "C": [2701.2]}),
    "indices": lambda: pl.DataFrame(
        {"Date": [DAY] * 2, "Code": ["0000", "8501"], "O": [2700.0, None], "H": [2710.0, None], "L": [2690.5, None],
         "C": [2701.2, 1999.0]}
    ),
    "investor_types": investor_types,
    "margin_interest": margin_interest,
    "margin_alert": margin_alert,
    "short_ratio": lambda: pl.DataFrame(
        {"Date": [DAY] * 33, "S33": SECTOR33_CODES, "SellExShortVa": [6e9] * 33, "ShrtWithResVa": [3e9] * 33,
         "ShrtNoResVa": [1e9] * 33}
    ),
    "short_sale_report": lambda: pl.DataFrame(
        {"DiscDate": [DAY] * 2, "CalcDate": [DAY - timedelta(days=2)] * 2, "Code": CODES[:2], "SSName": ["A", "B"],
         "FundName": ["", ""], "DICName": ["", ""], "ShrtPosToSO": [0.0081, 0.0043],
         "PrevRptDate": [None, DAY - timedelta(days=9)], "PrevRptRatio": [None, 0.0056]}
    ),
    "breakdown": breakdown,
    "options_225": options,
    "futures": lambda: options().drop("Strike", "PCDiv", "IV", "UnderPx"),
    "fin_summary": statements,
    "fin_details": lambda: pl.DataFrame(
        {"DiscDate": [DAY], "DiscTime": ["15:30:00"], "Code": ["13010"], "DiscNo": ["1"], "FS": ['{"Assets": "5"}']}
    ),
    "dividend": lambda: pl.DataFrame(
        {"RefNo": ["1", "2"], "PubDate": [DAY] * 2, "Code": CODES[:2], "StatCode": ["1", "2"], "IFCode": ["1", "2"],
         "FRCode": ["1", "2"], "CARefNo": ["", "1"], "DivRate": ["50", "-"], "ExDate": ["2024-09-27", "-"],
         "RecDate": ["2024-09-30", "2024-09-30"]}
    ),
    "earnings_date": lambda: pl.DataFrame(
        {"PubDate": [DAY] * 2, "SchDate": [DAY + timedelta(days=30), None], "FQName": ["1Q", "FY"],
         "FYE": ["0331", "1231"], "Code": CODES[:2]}
    ),
}  # fmt: skip
