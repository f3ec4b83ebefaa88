"""Splits are calendar cuts whose labels never meet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from atft_pipeline.dataset.splits import PARTS, Split, calendar_split, check_label_overlap, validation_folds
from atft_pipeline.settings import DELAYS, HORIZONS
from atft_pipeline.verdict import ContractBroken


def trading_days(count: int, start: str = "2022-01-04", holidays: tuple[str, ...] = ()) -> np.ndarray:
    return np.busday_offset(start, np.arange(count), roll="forward", holidays=list(holidays)).astype("datetime64[D]")


def test_t44_no_label_of_one_part_reaches_the_next() -> None:
    split = calendar_split(trading_days(700))
    for earlier, later in (("train", "valid"), ("valid", "test")):
        for delay in DELAYS:
            for horizon in HORIZONS:
                last_end = split.part(earlier)[1] - 1 + delay + horizon
                assert split.part(later)[0] - last_end >= 1


def test_t44_the_embargo_counts_sessions_even_in_golden_week() -> None:
    golden_week = ("2024-04-29", "2024-05-03", "2024-05-06", "2024-04-30", "2024-05-01", "2024-05-02")
    plain = trading_days(300, "2023-10-02")
    closed = trading_days(300, "2023-10-02", golden_week)
    assert not np.array_equal(plain, closed)
    for dates in (plain, closed):
        split = calendar_split(dates)
        assert split.valid[0] - split.train[1] == max(HORIZONS) + max(DELAYS)
        assert split.valid[0] == calendar_split(plain).valid[0]


def test_t45_a_date_is_in_at_most_one_part_and_windows_fit_before_the_first() -> None:
    split = calendar_split(trading_days(500))
    seen = [t for name in PARTS for t in range(*split.part(name))]
    assert len(seen) == len(set(seen))
    assert split.train[0] == 59
    assert split.test[1] == 500


def test_fractions_are_of_the_usable_dates() -> None:
    split = calendar_split(trading_days(1101))
    lengths = [split.part(name)[1] - split.part(name)[0] for name in PARTS]
    assert lengths == [600, 200, 200]


def test_t44_a_label_across_the_boundary_is_found() -> None:
    split = calendar_split(trading_days(500))
    planted = Split(split.dates, split.train, (split.train[1] + 5, split.valid[1]), split.test, 5)
    verdict = check_label_overlap(planted)
    assert not verdict.passed
    assert "train to valid" in verdict.message


def test_a_history_too_short_to_split_says_how_long_it_must_be() -> None:
    with pytest.raises(ContractBroken, match="at least 104"):
        calendar_split(trading_days(90))


def test_unsorted_dates_are_refused() -> None:
    dates = trading_days(300)
    with pytest.raises(ContractBroken, match="not strictly increasing"):
        calendar_split(np.concatenate([dates[:100], dates[:200]]))


@pytest.mark.parametrize("folds", [1, 2, 3])
def test_t44_folds_are_purged_adjoin_and_never_touch_the_test_part(folds: int) -> None:
    split = calendar_split(trading_days(900), fractions=(0.7, 0.15, 0.15))
    found = validation_folds(split.train, split.valid, folds)
    assert (found[-1].train, found[-1].valid) == (split.train, split.valid)
    assert len(found) == folds
    for fold in found:
        last_label_end = fold.train[1] - 1 + max(HORIZONS) + max(DELAYS)
        assert fold.valid[0] + min(DELAYS) - last_label_end >= 1
        assert fold.valid[1] <= split.valid[1] < split.test[0]
    assert all(a.valid[1] == b.valid[0] for a, b in pairwise(found))


def test_folds_that_would_train_on_too_little_or_leak_are_refused() -> None:
    split = calendar_split(trading_days(500))
    with pytest.raises(ContractBroken, match="use fewer folds"):
        validation_folds(split.train, split.valid, 6)
    with pytest.raises(ContractBroken, match="the embargo is"):
        validation_folds(split.train, (split.train[1] + 5, split.valid[1]), 2)
    with pytest.raises(ContractBroken, match="at least one"):
        validation_folds(split.train, split.valid, 0)
