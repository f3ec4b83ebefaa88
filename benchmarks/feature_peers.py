"""The same feature columns by Polars `.over` and by pandas groupby: what `features.py` measures its own against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl

from atft_pipeline.features import catalog
from atft_pipeline.panel.panel import Panel

PEER_GROUPS = ("px", "ret", "vol", "ta", "liq", "xs")
SHARED = frozenset(
    column.name for group in catalog.GROUPS if group.name in PEER_GROUPS for column in group.columns
)  # a peer's columns are those of our own names
MOMENTS = {"vol_cc_5": (5, 4), "vol_cc_10": (10, 8), "vol_cc_20": (20, 15), "vol_cc_60": (60, 45)}
AVERAGES = {5: 5, 20: 18, 60: 54, 200: 180}


def long_table(panel: Panel) -> pl.DataFrame:
    """Listed cells sorted by code and day, with the adjusted quotes that every way starts from."""
    t, n = np.nonzero(panel.axes.listed)
    order = np.lexsort((t, n))
    t, n = t[order], n[order]
    series = {
        "c": panel.c, "o": panel.o, "h": panel.h, "l": panel.l, "v": panel.v, "px_open": panel.open,
        "px_high": panel.high, "px_low": panel.low, "px_close": panel.close, "px_volume": panel.volume,
        "px_turnover": panel.turnover,
    }  # fmt: skip
    return pl.DataFrame(
        {
            "code": n.astype(np.int32),
            "day": t.astype(np.int32),
            "sector": panel.sector33[t, n],
            "member": panel.universe[t, n],
            **{name: pl.Series(values[t, n], nan_to_null=True) for name, values in series.items()},
        }
    )


def by_polars(base: pl.DataFrame) -> dict[str, np.ndarray]:
    """64 columns by window expressions, each chain closed over its code or day."""
    col = pl.col

    def past(name: str, rows: int) -> pl.Expr:
        return col(name).shift(rows).over("code")

    def mean(x: pl.Expr, n: int, m: int) -> pl.Expr:
        return x.rolling_mean(n, min_samples=m).over("code")

    def sd(x: pl.Expr, n: int, m: int, ddof: int = 1) -> pl.Expr:
        return x.rolling_std(n, min_samples=m, ddof=ddof).over("code")

    def ema(x: pl.Expr, span: int) -> pl.Expr:
        return x.ewm_mean(span=span, adjust=False, ignore_nulls=True, min_samples=span).over("code")

    def pct(name: str, *by: str) -> pl.Expr:
        x = pl.when(col("member")).then(col(name))
        return ((x.rank("average") - 1) / (x.count() - 1)).over("day", *by)

    def z(x: pl.Expr) -> pl.Expr:
        inside = pl.when(col("member")).then(x)
        return ((inside - inside.mean()) / inside.std()).over("day").clip(-5, 5)

    low14, high14 = (f(14, min_samples=12).over("code") for f in (col("l").rolling_min, col("h").rolling_max))
    low20, high20 = (f(20, min_samples=18).over("code") for f in (col("l").rolling_min, col("h").rolling_max))
    log_before = col("v").log1p().shift(1)
    rs = (col("h") / col("c")).log() * (col("h") / col("o")).log() + (col("l") / col("c")).log() * (
        col("l") / col("o")
    ).log()
    hl, r = col("range_hl_1d"), col("logret_1d")
    lazy = (
        base.lazy()
        .with_columns(
            *((col("c") / past("c", k) - 1).alias(f"ret_{k}d") for k in (1, 3, 5, 10, 20, 60, 120, 240)),
            *((col("c") / past("c", k)).log().alias(f"logret_{k}d") for k in (1, 5)),
            (col("o") / past("c", 1) - 1).alias("ret_overnight"),
            (col("c") / col("o") - 1).alias("ret_intraday"),
            (past("c", 20) / past("c", 240) - 1).alias("mom_240_20"),
            (col("h") / col("l")).log().alias("range_hl_1d"),
            *((ema(col("c"), n)).alias(f"ema_{n}") for n in (5, 12, 20, 26, 60)),
            mean(col("c"), 20, 18).alias("sma"),
            sd(col("c"), 20, 18, 0).alias("band"),
            rs.alias("rs"),
        )
        .with_columns(
            *((sd(r, n, m) * 245**0.5).alias(name) for name, (n, m) in MOMENTS.items()),
            col("ret_1d").rolling_max(20, min_samples=15).over("code").alias("ret_max_20"),
            col("ret_1d").rolling_min(20, min_samples=15).over("code").alias("ret_min_20"),
            (245 * mean(hl * hl, 20, 15) / (4 * np.log(2))).sqrt().alias("vol_pk_20"),
            (245 * mean(col("rs"), 20, 15).clip(0)).sqrt().alias("vol_rs_20"),
            (245 * mean(r.clip(None, 0) ** 2, 20, 15)).sqrt().alias("vol_down_20"),
            ((hl - mean(hl.shift(1), 20, 15)) / sd(hl.shift(1), 20, 15)).alias("range_z_20"),
            *((col("c") / mean(col("c"), n, m) - 1).alias(f"ta_px_to_sma_{n}") for n, m in AVERAGES.items()),
            (col("ema_5") / col("ema_20") - 1).alias("ta_ema_gap_5_20"),
            (col("ema_20") / col("ema_60") - 1).alias("ta_ema_gap_20_60"),
            ((col("ema_12") - col("ema_26")) / col("c")).alias("ta_macd_pct"),
            (col("ema_12") - col("ema_26")).alias("macd"),
            ((col("c") - (col("sma") - 2 * col("band"))) / (4 * col("band"))).alias("ta_bb_pctb_20"),
            (4 * col("band") / col("sma")).alias("ta_bb_width_20"),
            ((col("c") - low14) / (high14 - low14)).alias("ta_stoch_k_14"),
            ((col("c") - low20) / (high20 - low20)).alias("ta_donchian_pos_20"),
            (col("c") / col("h").rolling_max(240, min_samples=120).over("code") - 1).alias("ta_dist_high_240"),
            (col("c") / col("l").rolling_min(240, min_samples=120).over("code") - 1).alias("ta_dist_low_240"),
            (col("v") / mean(col("v").shift(1), 5, 4)).alias("liq_vol_ratio_5"),
            (col("v") / mean(col("v").shift(1), 20, 15)).alias("liq_vol_ratio_20"),
            ((col("v").log1p() - mean(log_before, 20, 15)) / sd(log_before, 20, 15)).alias("liq_vol_z_20"),
            (mean(col("v"), 5, 4) / mean(col("v"), 20, 15) - 1).alias("liq_vol_accel"),
            mean(col("px_turnover"), 20, 10).log1p().alias("liq_log_adv_20"),
            mean(col("px_turnover"), 60, 30).log1p().alias("liq_log_adv_60"),
            (1e9 * mean(col("ret_1d").abs() / col("px_turnover"), 20, 10)).log1p().alias("liq_amihud_20"),
            mean((~(col("px_volume").fill_null(0) > 0)).cast(pl.Float64), 60, 30).alias("liq_zero_frac_60"),
            (col("px_close") * col("px_volume") / col("px_turnover") - 1).alias("liq_vwap_dev"),
        )
        .with_columns(
            (ema(col("macd"), 9) / col("c")).alias("ta_macd_signal_pct"),
            (col("vol_cc_5") / col("vol_cc_60")).alias("vol_ratio_5_60"),
            (sd(col("vol_cc_5"), 20, 15) / mean(col("vol_cc_5"), 20, 15)).alias("vol_of_vol_20"),
            pct("ret_1d").alias("xs_pct_ret_1d"),
            pct("ret_5d").alias("xs_pct_ret_5d"),
            pct("ret_20d").alias("xs_pct_ret_20d"),
            pct("mom_240_20").alias("xs_pct_mom_240_20"),
            pct("vol_cc_20").alias("xs_pct_vol_cc_20"),
            pct("liq_log_adv_20").alias("xs_pct_adv_20"),
            z(col("ret_5d")).alias("xs_z_ret_5d"),
            z(col("liq_vol_ratio_20").log()).alias("xs_z_vol_ratio_20"),
        )
        .with_columns((col("ta_macd_pct") - col("ta_macd_signal_pct")).alias("ta_macd_hist_pct"))
    )
    names = [name for name in lazy.collect_schema().names() if name in SHARED]
    frame = lazy.select(col(names).cast(pl.Float32)).collect(engine="streaming")
    return {name: frame[name].fill_null(np.nan).to_numpy() for name in names}


def by_pandas(base: pl.DataFrame) -> dict[str, np.ndarray]:
    """The same by groupby on code or day; a subset of the columns, each checked like Polars' own."""
    f = base.to_pandas()
    code, day = f["code"], f["day"]
    out: dict[str, pd.Series] = {}

    def past(x: pd.Series, rows: int) -> pd.Series:
        return x.groupby(code, sort=False).shift(rows)

    def roll(x: pd.Series, n: int, m: int, how: str, **options: int) -> pd.Series:
        window = x.groupby(code, sort=False).rolling(n, min_periods=m)
        return getattr(window, how)(**options).reset_index(level=0, drop=True)

    def ema(x: pd.Series, span: int) -> pd.Series:
        window = x.groupby(code, sort=False).ewm(span=span, adjust=False, ignore_na=True, min_periods=span)
        return window.mean().reset_index(level=0, drop=True).where(x.notna())

    def pct(x: pd.Series) -> pd.Series:
        by_day = x.where(f["member"]).groupby(day)
        return (by_day.rank() - 1) / (by_day.transform("count") - 1)

    c, o, h, low, v = f["c"], f["o"], f["h"], f["l"], f["v"]
    for k in (1, 3, 5, 10, 20, 60, 120, 240):
        out[f"ret_{k}d"] = c / past(c, k) - 1
    for k in (1, 5):
        out[f"logret_{k}d"] = np.log(c / past(c, k))
    r, hl, tv = out["logret_1d"], np.log(h / low), f["px_turnover"]
    out |= {"ret_overnight": o / past(c, 1) - 1, "ret_intraday": c / o - 1, "range_hl_1d": hl}
    out["mom_240_20"] = past(c, 20) / past(c, 240) - 1
    for name, (n, m) in MOMENTS.items():
        out[name] = roll(r, n, m, "std") * 245**0.5
    out["ret_max_20"], out["ret_min_20"] = roll(out["ret_1d"], 20, 15, "max"), roll(out["ret_1d"], 20, 15, "min")
    out["vol_pk_20"] = np.sqrt(245 * roll(hl * hl, 20, 15, "mean") / (4 * np.log(2)))
    out["vol_down_20"] = np.sqrt(245 * roll(r.clip(upper=0) ** 2, 20, 15, "mean"))
    rs = np.log(h / c) * np.log(h / o) + np.log(low / c) * np.log(low / o)
    out["vol_rs_20"] = np.sqrt(245 * roll(rs, 20, 15, "mean").clip(lower=0))
    out["vol_of_vol_20"] = roll(out["vol_cc_5"], 20, 15, "std") / roll(out["vol_cc_5"], 20, 15, "mean")
    idle = (~(f["px_volume"].fillna(0) > 0)).astype(float)
    out["liq_zero_frac_60"] = roll(idle, 60, 30, "mean")
    out["vol_ratio_5_60"] = out["vol_cc_5"] / out["vol_cc_60"]
    out["range_z_20"] = (hl - roll(past(hl, 1), 20, 15, "mean")) / roll(past(hl, 1), 20, 15, "std")
    for n, m in AVERAGES.items():
        out[f"ta_px_to_sma_{n}"] = c / roll(c, n, m, "mean") - 1
    emas = {n: ema(c, n) for n in (5, 12, 20, 26, 60)}
    out["ta_ema_gap_5_20"], out["ta_ema_gap_20_60"] = emas[5] / emas[20] - 1, emas[20] / emas[60] - 1
    macd = emas[12] - emas[26]
    out["ta_macd_pct"], out["ta_macd_signal_pct"] = macd / c, ema(macd, 9) / c
    out["ta_macd_hist_pct"] = out["ta_macd_pct"] - out["ta_macd_signal_pct"]
    sma, band = roll(c, 20, 18, "mean"), roll(c, 20, 18, "std", ddof=0)
    out["ta_bb_pctb_20"], out["ta_bb_width_20"] = (c - (sma - 2 * band)) / (4 * band), 4 * band / sma
    for name, n, m in (("ta_stoch_k_14", 14, 12), ("ta_donchian_pos_20", 20, 18)):
        floor, roof = roll(low, n, m, "min"), roll(h, n, m, "max")
        out[name] = (c - floor) / (roof - floor)
    out["ta_dist_high_240"] = c / roll(h, 240, 120, "max") - 1
    out["ta_dist_low_240"] = c / roll(low, 240, 120, "min") - 1
    before = past(v, 1)
    for n, m in ((5, 4), (20, 15)):
        out[f"liq_vol_ratio_{n}"] = v / roll(before, n, m, "mean")
    out["liq_vol_accel"] = roll(v, 5, 4, "mean") / roll(v, 20, 15, "mean") - 1
    out["liq_log_adv_20"] = np.log1p(roll(tv, 20, 10, "mean"))
    out["liq_log_adv_60"] = np.log1p(roll(tv, 60, 30, "mean"))
    out["liq_amihud_20"] = np.log1p(1e9 * roll(out["ret_1d"].abs() / tv, 20, 10, "mean"))
    out["liq_vwap_dev"] = f["px_close"] * f["px_volume"] / tv - 1
    ranked = {"ret_1d": "ret_1d", "ret_5d": "ret_5d", "ret_20d": "ret_20d", "mom_240_20": "mom_240_20"}
    ranked |= {"vol_cc_20": "vol_cc_20", "adv_20": "liq_log_adv_20"}
    for name, source in ranked.items():
        out[f"xs_pct_{name}"] = pct(out[source])
    out |= {name: f[name] for name in SHARED if name.startswith("px_")}
    return {name: values.to_numpy(np.float32) for name, values in out.items()}
