"""Calendar splits: train, embargo, validation, embargo, test. Only positions on the trading calendar, never codes.

The embargo is as long as the longest label reaches, so that no label of one part overlaps a label of the next.
Input windows may look back into an embargo (past data is allowed); labels may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from atft_pipeline.settings import DELAYS, HORIZONS, WalkForward
from atft_pipeline.verdict import ContractBroken, Verdict

FRACTIONS = (0.6, 0.2, 0.2)
WINDOW = 60
"""Rows in the model's input window: dates before the first full window are warm-up."""

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Half-open positions `(first, end)` of each part on the panel's date axis, and the embargo in trading days.

    `dates` may end before the panel does: what is built for the split ends there too.
    """

    dates: np.ndarray
    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]
    embargo_days: int

    def part(self, name: str) -> tuple[int, int]:
        """The half-open positions of `train`, `valid` or `test`."""
        if name not in PARTS:
            raise KeyError(f"{name!r} is not a part of a split; use one of {', '.join(PARTS)}")
        first, end = getattr(self, name)
        return int(first), int(end)

    def span(self, name: str) -> tuple[str, str]:
        """First and last date of a part, both included, as YYYY-MM-DD."""
        first, end = self.part(name)
        return str(self.dates[first]), str(self.dates[end - 1])

    def as_json(self) -> dict[str, Any]:
        """Dates of each part and the embargo: what manifests and statistics carry."""
        return {**{name: list(self.span(name)) for name in PARTS}, "embargo_days": self.embargo_days}

    def positions(self) -> dict[str, list[int]]:
        """Half-open positions of each part."""
        return {name: list(self.part(name)) for name in PARTS}


def embargo_days(horizons: tuple[int, ...] = HORIZONS, delays: tuple[int, ...] = DELAYS) -> int:
    """Trading days between two parts: the longest horizon after the longest delay."""
    return max(horizons) + max(delays)


def calendar_split(
    dates: np.ndarray,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    warm_up: int = WINDOW,
    horizons: tuple[int, ...] = HORIZONS,
    delays: tuple[int, ...] = DELAYS,
) -> Split:
    """Cut sorted trading `dates` [T] into parts by `fractions` of the dates left after warm-up and both embargoes.

    The test part runs to the newest date; its last labels are not known yet and stay missing. Raises
    `ContractBroken` when the history is too short or a label would cross a boundary.
    """
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise ContractBroken(f"split fractions {fractions} must be positive and add up to 1")
    _require_sorted(dates)
    embargo = embargo_days(horizons, delays)
    start = warm_up - 1
    usable = len(dates) - start - 2 * embargo
    train_days, valid_days = round(fractions[0] * usable), round(fractions[1] * usable)
    if min(train_days, valid_days, usable - train_days - valid_days) < 1:
        needed = start + 2 * embargo + 3
        raise ContractBroken(
            f"{len(dates)} trading dates are too few to split (warm-up {start}, two embargoes of {embargo}); "
            f"at least {needed} are needed: choose an earlier start date"
        )
    train = (start, start + train_days)
    valid = (train[1] + embargo, train[1] + embargo + valid_days)
    split = Split(dates, train, valid, (valid[1] + embargo, len(dates)), embargo)
    check_label_overlap(split, horizons, delays).require()
    return split


@dataclass(frozen=True)
class Fold:
    """Half-open positions of one training span and of the validation span after it."""

    train: tuple[int, int]
    valid: tuple[int, int]


def validation_folds(
    train: tuple[int, int], valid: tuple[int, int], folds: int, embargo: int | None = None
) -> tuple[Fold, ...]:
    """`folds` purged folds of expanding history, oldest first; the last is the split's own `train` and `valid`.

    The validation spans are as long as `valid`, adjoin, and end where it ends, so the test part is never touched. Each
    training span ends `embargo` trading days (default: as far as labels reach) before its validation. Raises
    `ContractBroken` when the oldest fold would train on fewer dates than it validates on.
    """
    embargo = embargo_days() if embargo is None else embargo
    days, gap = valid[1] - valid[0], valid[0] - train[1]
    if gap < embargo:
        raise ContractBroken(f"train and validation lie {gap} trading days apart, the embargo is {embargo}")
    found = []
    for back in range(folds - 1, -1, -1):
        first = valid[0] - back * days
        fold = Fold((train[0], first - gap), (first, first + days))
        if fold.train[1] - fold.train[0] < days:
            raise ContractBroken(
                f"{folds} folds need {folds * days} training dates before the validation of {days} dates, "
                f"there are {train[1] - train[0]}: use fewer folds or an earlier start date"
            )
        found.append(fold)
    if not found:
        raise ContractBroken(f"{folds} folds were asked for; at least one is needed")
    return tuple(found)


def walk_forward_splits(dates: np.ndarray, plan: WalkForward, *, warm_up: int = WINDOW) -> tuple[Split, ...]:
    """Purged folds of expanding history over sorted trading `dates` [T], oldest first; test spans adjoin and never
    overlap. Each split's own dates end with its test part: a fold holds nothing later.

    Raises `ContractBroken`, naming the sessions that are needed, when the history is too short for `plan`, or when a
    label would cross a boundary.
    """
    _require_sorted(dates)
    embargo, start = embargo_days(), warm_up - 1
    before_test = start + plan.min_train_days + plan.valid_days + 2 * embargo
    found = []
    for first, end in _test_spans(dates, plan):
        if first < before_test:
            continue
        valid = (first - embargo - plan.valid_days, first - embargo)
        split = Split(dates[:end], (start, valid[0] - embargo), valid, (first, end), embargo)
        check_label_overlap(split).require()
        found.append(split)
    wanted = plan.folds if plan.refit == "days" else 1
    if len(found) < wanted:
        tested = f"{plan.folds} folds of {plan.test_days}" if plan.refit == "days" else "one calendar year"
        needed = f"{before_test + plan.folds * plan.test_days} sessions" if plan.refit == "days" else "more history"
        raise ContractBroken(
            f"{len(dates)} sessions are too few to test {tested}: before the first test lie {before_test} (warm-up "
            f"{start}, at least {plan.min_train_days} to train, {plan.valid_days} to validate, two embargoes of "
            f"{embargo}), so {needed} are needed. Set smaller ATFT_WALK_* values or start earlier"
        )
    return tuple(found[-plan.folds :])


def _test_spans(dates: np.ndarray, plan: WalkForward) -> list[tuple[int, int]]:
    """Half-open test spans, oldest first. The newest year joins the one before it while it is shorter than
    `test_days`: its labels are hardly known yet."""
    total = len(dates)
    if plan.refit == "days":
        return [(total - k * plan.test_days, total - (k - 1) * plan.test_days) for k in range(plan.folds, 0, -1)]
    first = np.unique(dates.astype("datetime64[Y]"), return_index=True)[1].tolist()
    if len(first) > 1 and total - first[-1] < plan.test_days:
        first.pop()
    return list(zip(first, [*first[1:], total], strict=True))


def _require_sorted(dates: np.ndarray) -> None:
    if len(dates) > 1 and not bool((dates[1:] > dates[:-1]).all()):
        raise ContractBroken("the date axis is not strictly increasing; rebuild the panel")


def check_label_overlap(
    split: Split, horizons: tuple[int, ...] = HORIZONS, delays: tuple[int, ...] = DELAYS
) -> Verdict:
    """No label interval of a part reaches the next part: sessions between the last end and the next start >= 1."""
    reach = max(horizons) + max(delays)
    gaps = {
        "train to valid": split.valid[0] + min(delays) - (split.train[1] - 1 + reach),
        "valid to test": split.test[0] + min(delays) - (split.valid[1] - 1 + reach),
    }
    name, smallest = min(gaps.items(), key=lambda item: item[1])
    return Verdict(
        passed=smallest >= 1,
        got=smallest,
        want=1,
        message=f"{name}: the last label ends {smallest} sessions before the next part's labels start (want >= 1)",
        details={"sessions": gaps, "embargo_days": split.embargo_days, "reach_days": reach},
    )
