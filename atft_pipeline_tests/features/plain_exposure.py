"""Every column of `mb` and `idx` once more, in the plainest form; see `plain_formulas`."""

from __future__ import annotations

import numpy as np

from atft_pipeline_tests.features.plain_formulas import Columns, Market, by_date
from atft_pipeline_tests.features.plain_windows import NAN, Array, divided, high, lag, low, mean, pairs, sd, total
from atft_pipeline_tests.synthetic import Frames


def exposure_columns(m: Market, others: Columns, index: Columns) -> Columns:
    """[T, N]; `others` are the base columns and `index` those of `mkt`."""
    r, x = m.ret(1), np.broadcast_to(index["mkt_ret_1d"], m.c.shape)
    both = np.isfinite(r) & np.isfinite(x)
    r, x = np.where(both, r, NAN), np.where(both, x, NAN)
    beta = divided(pairs(r, x, 60, 40, False), sd(x, 60, 40) ** 2)
    left = np.sqrt(np.maximum(sd(r, 60, 40) ** 2 - beta**2 * sd(x, 60, 40) ** 2, 0)) * np.sqrt(245)
    e = r - lag(beta, 1) * x
    return {
        "mb_beta_60": beta,
        "mb_beta_240": divided(pairs(r, x, 240, 160, False), sd(x, 240, 160) ** 2),
        "mb_corr_60": pairs(r, x, 60, 40, True),
        "mb_resid_vol_60": left,
        "mb_alpha_60": mean(r, 60, 40) - beta * mean(x, 60, 40),
        "mb_resid_ret_1d": e,
        "mb_resid_ret_5d": total(e, 5, 5),
        "mb_resid_ret_20d": total(e, 20, 18),
        "mb_rel_ret_5d": m.ret(5) - index["mkt_ret_5d"],
        "mb_rel_ret_20d": m.ret(20) - index["mkt_ret_20d"],
        "mb_idio_vol_ratio": divided(left, others["vol_cc_60"]),
        "mb_beta_chg_20": beta - lag(beta, 20),
    }


def breadth_columns(m: Market, frames: Frames, index: Columns) -> Columns:
    """[T, 1]."""
    closes = frames.indices.pivot("Code", index="Date", values="C").sort("Date")
    k = {code: closes[code].to_numpy()[:, None] for code in closes.columns[1:]}
    sectors = np.hstack([k[code] for code in sorted(k) if "0040" <= code <= "0060"])
    assert sectors.shape[1] == 33
    u, r = m.universe, m.ret(1)
    extreme = np.where(m.h >= high(m.h, 240, 120), 1.0, 0) - np.where(m.l <= low(m.l, 240, 120), 1.0, 0)
    extreme = np.where(np.isnan(high(m.h, 240, 120)) | np.isnan(m.h), NAN, extreme)
    to_average = m.c / mean(m.c, 60, 54) - 1

    def change(x: Array, n: int) -> Array:
        return x / lag(x, n) - 1

    def by_hand(x: Array, of: object, least: int = 100, where: Array = u) -> Array:
        values = [row[inside & np.isfinite(row)] for row, inside in zip(x, where, strict=True)]
        return np.array([[of(v) if len(v) >= least else NAN] for v in values])  # type: ignore[operator]

    advancing = by_hand(np.where(r == 0, NAN, r), lambda v: np.mean(v > 0))
    together = by_hand(r, np.mean, least=1)
    everyone = np.ones(sectors.shape, bool)
    return {
        "idx_value_growth_5d": change(k["8100"], 5) - change(k["8200"], 5),
        "idx_value_growth_20d": change(k["8100"], 20) - change(k["8200"], 20),
        "idx_small_large_5d": change(k["002D"], 5) - change(k["0028"], 5),
        "idx_small_large_20d": change(k["002D"], 20) - change(k["0028"], 20),
        "idx_growth250_rel_5d": change(k["0070"], 5) - index["mkt_ret_5d"],
        "idx_reit_rel_20d": change(k["0075"], 20) - index["mkt_ret_20d"],
        "idx_sector_disp_5d": by_hand(change(sectors, 5), lambda v: v.std(ddof=1), 25, everyone),
        "idx_sector_gt_sma50": by_hand(sectors - mean(sectors, 50, 45), lambda v: np.mean(v > 0), 25, everyone),
        "brd_adv_ratio_1d": advancing,
        "brd_adv_ratio_10d": mean(advancing, 10, 8),
        "brd_gt_sma_60": by_hand(to_average, lambda v: np.mean(v > 0)),
        "brd_high_low_240": by_hand(extreme, np.mean),
        "brd_disp_ret_1d": by_hand(
            by_date(r, u, lambda v: np.clip(v, *np.quantile(v, [0.05, 0.95])), least=1), lambda v: v.std(ddof=1)
        ),
        "brd_avg_corr_60": np.clip(sd(together, 60, 45) ** 2 / by_hand(sd(r, 60, 40) ** 2, np.mean, least=1), 0, 1),
    }
