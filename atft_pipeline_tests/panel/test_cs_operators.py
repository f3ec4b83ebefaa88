"""Cross-section and group operators against polars, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from atft_pipeline.panel import operators as op

Array = NDArray[np.float64]


def section(seed: int = 0) -> tuple[Array, NDArray[np.int8], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(25, 80)), 1)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[3], x[4], x[5, 2] = np.nan, 7.0, np.inf
    return x, rng.integers(-1, 6, x.shape).astype(np.int8), rng.random(x.shape) < 0.8


def test_rank_gives_ties_their_average_and_skips_nulls() -> None:
    """Q19: average ranks on every path, nulls not counted."""
    x, _, where = section()
    got = op.cs_rank(x, where)
    for t in range(len(x)):
        member = where[t] & np.isfinite(x[t])
        expected = np.full(x.shape[1], np.nan)
        if member.sum() > 1:
            expected[member] = (stats.rankdata(x[t][member]) - 1) / (member.sum() - 1)
        np.testing.assert_allclose(got[t], expected, rtol=1e-12)


def test_constants_share_the_middle_rank() -> None:
    ranks = op.cs_rank(np.full((1, 9), 4.2))
    assert (ranks == 0.5).all()


def test_rank_below_the_minimum_is_null() -> None:
    x = np.arange(12.0)[None, :]
    assert np.isnan(op.cs_rank(x, min_obs=13)).all() and np.isfinite(op.cs_rank(x, min_obs=12)).all()


def test_moments_and_quantiles_match_numpy() -> None:
    x, _, where = section()
    for t in range(len(x)):
        v = x[t][where[t] & np.isfinite(x[t])]
        assert op.cs_count(x, where)[t] == len(v)
        assert op.cs_sum(x, where)[t] == pytest.approx(v.sum())
        if len(v) == 0:
            assert np.isnan([f(x, where)[t] for f in (op.cs_mean, op.cs_std)]).all()
            continue
        assert op.cs_mean(x, where)[t] == pytest.approx(v.mean())
        assert op.cs_std(x, where)[t] == pytest.approx(v.std(ddof=1), abs=1e-12)
        assert op.cs_quantile(x, 0.05, where)[t] == pytest.approx(np.quantile(v, 0.05))


def test_zscore_is_clipped_and_null_for_a_constant_date() -> None:
    x = np.random.default_rng(1).normal(size=(2, 50))
    x[0, 0], x[1] = 1e6, 3.0
    z = op.cs_zscore(x, clip=5.0)
    assert z[0, 0] == 5.0 and np.isnan(z[1]).all()
    free = op.cs_zscore(np.random.default_rng(2).normal(size=(1, 50)))
    assert free.mean() == pytest.approx(0, abs=1e-12) and free.std(ddof=1) == pytest.approx(1)


def test_clip_limits_members_to_their_own_quantiles() -> None:
    x = np.arange(101.0)[None, :]
    where = x < 100
    clipped = op.cs_clip(x, where, 0.1, 0.9)
    assert np.isnan(clipped[0, 100])
    assert (np.nanmin(clipped), np.nanmax(clipped)) == pytest.approx((9.9, 89.1))


def test_group_means_match_a_loop_and_leave_one_out_takes_the_own_value_out() -> None:
    x, group, where = section(2)
    plain, others = (op.group_mean(x, group, where, 3, leave_one_out=loo) for loo in (False, True))
    table = op.group_table(x, group, where, 6, 3)
    for t in range(len(x)):
        for j in range(x.shape[1]):
            same = where[t] & np.isfinite(x[t]) & (group[t] == group[t, j]) & (group[t, j] >= 0)
            expected = x[t][same].mean() if same.sum() >= 3 else np.nan
            assert plain[t, j] == pytest.approx(expected, nan_ok=True)
            if group[t, j] >= 0:
                assert table[t, group[t, j]] == pytest.approx(expected, nan_ok=True)
            same[j] = False
            assert others[t, j] == pytest.approx(
                x[t][same].mean() if same.sum() >= 3 else np.nan, nan_ok=True, abs=1e-12
            )


def test_group_tables_count_sum_and_come_back_to_the_stocks() -> None:
    x, group, where = section(3)
    count, total = op.group_count_table(x, group, where, 6), op.group_sum_table(x, group, where, 6)
    members = where & np.isfinite(x)
    for g in range(6):
        inside = members & (group == g)
        np.testing.assert_array_equal(count[:, g], inside.sum(axis=1))
        np.testing.assert_allclose(total[:, g], np.where(inside, x, 0).sum(axis=1), atol=1e-9)
    taken = op.group_take(count, group)
    assert np.isnan(taken[group < 0]).all()
    assert (taken[group == 2] == np.broadcast_to(count[:, [2]], x.shape)[group == 2]).all()


def test_group_rank_is_the_rank_inside_the_group() -> None:
    x, group, where = section(4)
    got = op.group_rank(x, group, where, 3)
    expected = np.full(x.shape, np.nan)
    for t in range(len(x)):
        for g in range(6):
            inside = where[t] & np.isfinite(x[t]) & (group[t] == g)
            if inside.sum() >= 3:
                expected[t][inside] = (stats.rankdata(x[t][inside]) - 1) / (inside.sum() - 1)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_codes_that_are_no_members_change_no_bit() -> None:
    x, group, where = section(5)
    extra = np.random.default_rng(6).normal(size=(len(x), 7))
    wide_x = np.concatenate([extra[:, :3], x, extra[:, 3:]], axis=1)
    wide_group = np.pad(group, ((0, 0), (3, 4)), constant_values=1)
    wide_where = np.pad(where, ((0, 0), (3, 4)))
    inside = slice(3, 3 + x.shape[1])
    np.testing.assert_array_equal(op.cs_mean(wide_x, wide_where), op.cs_mean(x, where))
    np.testing.assert_array_equal(op.cs_std(wide_x, wide_where), op.cs_std(x, where))
    np.testing.assert_array_equal(op.cs_rank(wide_x, wide_where)[:, inside], op.cs_rank(x, where))
    np.testing.assert_array_equal(
        op.group_mean(wide_x, wide_group, wide_where, 2, True)[:, inside], op.group_mean(x, group, where, 2, True)
    )


def test_a_single_series_is_no_cross_section() -> None:
    with pytest.raises(ValueError, match=r"needs \[T, N\]"):
        op.cs_rank(np.arange(5.0))


def test_ranks_order_extreme_values_and_equal_zeros_exactly() -> None:
    """The sort works on bits: signs, exponents and the last bit of the mantissa all count, -0.0 equals 0.0."""
    near = np.nextafter(1.0, 2.0)
    x = np.array([[1.0, near, -1.0, -near, 0.0, -0.0, 1e308, -1e308, 5e-324, -5e-324, 1.0]])
    expected = (stats.rankdata(x[0]) - 1) / (x.shape[1] - 1)
    np.testing.assert_array_equal(op.cs_rank(x)[0], expected)
    for q in (0.0, 0.3, 1.0):
        assert op.cs_quantile(x[:, 2:6], q)[0] == np.quantile(x[0, 2:6], q)


def test_many_dates_shared_by_threads_give_the_bits_of_each_date_alone() -> None:
    rng = np.random.default_rng(13)
    x = rng.normal(size=(900, 120))
    ids, where = rng.integers(-1, 6, x.shape).astype(np.int8), rng.random(x.shape) < 0.8
    cases = [
        lambda s: op.cs_rank(x[s], where[s]),
        lambda s: op.group_rank(x[s], ids[s], where[s]),
        lambda s: op.group_mean(x[s], ids[s], where[s], 2, leave_one_out=True),
        lambda s: op.cs_zscore(x[s], where[s], clip=2.0),
        lambda s: op.cs_clip(x[s], where[s], 0.05, 0.95),
        lambda s: op.cs_std(x[s], where[s]),
        lambda s: op.group_take(op.group_table(x[s], ids[s], where[s], 6), ids[s]),
    ]
    for case in cases:
        whole = case(slice(None))
        apart = np.concatenate([case(slice(t, t + 1)) for t in range(0, 900, 60)])
        np.testing.assert_array_equal(whole[::60], apart)
