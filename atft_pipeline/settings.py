"""Every path, default and threshold, typed and read once from the environment.

Standard library only: the training process imports this module too. The API key is deliberately absent: it is read
from the environment by the one module that sends it (`jquants/client.py`).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

TOKYO = timezone(timedelta(hours=9), "JST")
"""Without daylight saving, so no time-zone database is needed."""

HORIZONS = (1, 2, 3, 5, 10, 20)
"""Label horizons in trading days."""

DELAYS = (0, 1)
"""Days between the features' close and the entry: 0 is the research label, 1 is tradable and the default."""

ANNUAL_DAYS = 245
"""Trading days in a Tokyo year, for annualised features. Sharpe ratios use 252, as the field does."""

PLANS = ("free", "light", "standard", "premium")

PLAN_RECORD = "plan.json"
"""In the lake: the plan that the key was last found to have. Used while JQUANTS_PLAN is empty."""


class SettingError(ValueError):
    """A setting is missing or malformed; the text names it and the remedy."""


@dataclass(frozen=True)
class MarketSize:
    """The simulated market: how many stocks, which dates, which seed, which planted signal."""

    stocks: int = 200
    start: date = date(2020, 7, 1)
    end: date = date(2024, 6, 28)
    seed: int = 7
    plant: str = "demo"

    @property
    def name(self) -> str:
        """The market in one line: what stored rows give as their origin."""
        return f"simulated {self.stocks} stocks {self.start} to {self.end}, seed {self.seed}, plant {self.plant}"


@dataclass(frozen=True)
class Thresholds:
    """What the checks demand. README, checks and CI read these numbers from here."""

    min_stat_rows: int = 200_000
    """Fewest sampled (date, code) rows behind the normalisation statistics; all training rows where there are fewer."""
    min_stat_codes: int = 500
    """Fewest codes behind the statistics; all codes where the universe is smaller."""
    min_stat_date_coverage: float = 0.9
    """Share of the training dates that the statistics must span and touch."""
    max_saturation: float = 0.05
    """Largest share of clipped values in any scaled feature."""
    rows_per_date_tolerance: float = 0.05
    """Rows per date may differ from the listed issues by this share."""
    min_cross_section: int = 20
    """Fewest stocks on a date for a cross-sectional statistic."""
    too_good_feature_ic: float = 0.15
    too_good_day_ic: float = 0.9
    too_good_model_ic: float = 0.15
    """A mean daily 1-day RankIC above this is a leak until proven otherwise."""
    min_rank_ic: float = 0.02
    min_ic: float = 0.015
    min_sharpe: float = 0.0
    min_standard_errors: float = 2.0
    """A metric must exceed its threshold's sign by this many standard errors: it must be signal, not luck."""
    min_score_std: float = 1e-4
    min_unique_ratio: float = 0.9
    min_gradient_norm: float = 1e-6
    promotion_margin: float = 0.001
    """Mean daily RankIC by which another recipe must beat the champion, besides the 95 % interval above zero."""
    max_regression: float = 0.01
    """A challenger whose mean daily RankIC is lower by more than this is worse, however wide the interval."""
    min_common_dates: int = 60
    """Fewest common validation dates for a comparison with the champion."""
    max_psi: float = 0.25
    """Population stability index above which an input has drifted; what is usual in training counts too."""
    psi_over_usual: float = 1.5
    max_drifted_share: float = 0.25
    """Share of the inputs that may have drifted on the newest date: a market beyond its training range moves all its
    market-wide inputs (a sixth) at once; at most 7 % were seen on sound dates of simulated markets."""
    max_lost_rows: float = 0.1
    """Share of the usual rows that may be missing on the newest date."""
    min_scored_share: float = 0.9
    """Share of the tradable stocks of the newest date that must have a score."""
    min_same_scores: float = 0.95
    """Smallest rank correlation of a date between a champion's scores of its own newest dates now and those that its
    training stored."""
    max_lost_inputs: float = 0.05
    """Share of the champion's inputs that may have gone flat in the challenger's training data."""
    max_sessions_late: int = 0
    """Trading days by which the newest date may lag behind the prices that are published."""


@dataclass(frozen=True)
class WalkForward:
    """How the walk-forward evaluation cuts the calendar, and what it trains in each fold. Lengths in trading days."""

    folds: int = 5
    """Refits; the newest ones where `refit` is `year`."""
    refit: str = "days"
    """`days`: test spans of `test_days`, the last one ending at the newest date. `year`: calendar years."""
    test_days: int = 63
    valid_days: int = 126
    min_train_days: int = 504
    """Fewest training dates of the first fold. The demo's four years leave fewer beside five folds; it asks for 378."""
    seeds: tuple[int, ...] = (7, 8, 9)
    """One model per fold and seed: below three seeds no claim. The demo takes one."""
    workers: int = 1
    """Folds at a time, each in processes of its own with the preset's threads. One GPU, or two cores: one."""


def default_data_dir() -> Path:
    return Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True)
class Settings:
    """One run's settings. `Settings.from_env()` is the only reader of the environment."""

    market: str = "simulated"
    """`simulated`: a loopback exchange is started on demand. `jquants`: the service at `base_url`, with your key."""
    base_url: str = ""
    data_dir: Path = field(default_factory=default_data_dir)
    plan: str = "standard"
    plan_is_set: bool = True
    """False: JQUANTS_PLAN is empty and a key is used; `plan` is the one found last, else standard, until asked."""
    start: date = date(2020, 7, 1)
    end: date | None = date(2024, 6, 28)
    """Last date to build; None means up to today (Tokyo)."""
    now: datetime | None = None
    """A time in Tokyo to stand at instead of the machine's clock: rehearsals against an exchange whose clock is set."""
    late_tries: int = 2
    """How often a scheduled night asks again for a table that is late, before it fails and the next tick tries."""
    late_wait_minutes: int = 15
    requests_per_minute: int | None = None
    """None: the plan's own limit."""
    size: MarketSize = field(default_factory=MarketSize)
    thresholds: Thresholds = field(default_factory=Thresholds)
    training_preset: str = "demo"
    walk_forward: WalkForward = field(default_factory=WalkForward)
    contract: str = ""
    """Name of a contract of fewer than 306 columns that training shall accept, e.g. `light-216`."""

    def clock(self) -> datetime:
        """The present time in Tokyo, aware."""
        return self.now or datetime.now(TOKYO)

    def today(self) -> date:
        """The newest date that may be asked for: today in Tokyo, or the configured end before it. A simulated market
        without a clock stands at its end."""
        if self.end is not None and self.market == "simulated":
            return self.end
        present = self.clock().date()
        return min(self.end, present) if self.end else present

    @property
    def lake(self) -> Path:
        """Root of everything built from this market; simulated and real data never share a folder."""
        return self.data_dir / self.market

    @property
    def market_dir(self) -> Path:
        """The simulated market's own folder: the tables that the exchange serves, and the oracle."""
        return self.data_dir / self.market / "market"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env` (default: the process environment). Raises `SettingError` with the remedy."""
        env = os.environ if env is None else env
        simulated = not env.get("JQUANTS_API_KEY") and not env.get("JQUANTS_BASE_URL")
        market = env.get("ATFT_MARKET", "simulated" if simulated else "jquants")
        if market not in ("simulated", "jquants"):
            raise SettingError(f"ATFT_MARKET is {market!r}; use 'simulated' or 'jquants'")
        if market == "jquants" and not env.get("JQUANTS_API_KEY"):
            raise SettingError("ATFT_MARKET=jquants needs JQUANTS_API_KEY in the environment")
        size = MarketSize(
            stocks=_int(env, "ATFT_SIM_STOCKS", MarketSize.stocks),
            start=_date(env, "ATFT_SIM_START", MarketSize.start),
            end=_date(env, "ATFT_SIM_END", MarketSize.end),
            seed=_int(env, "ATFT_SIM_SEED", MarketSize.seed),
            plant=env.get("ATFT_SIM_PLANT", MarketSize.plant),
        )
        data_dir = env.get("ATFT_DATA_DIR", "")
        root = Path(data_dir).resolve() if data_dir else default_data_dir()
        named = env.get("JQUANTS_PLAN", "")
        plan_is_set = bool(named) or market == "simulated"
        plan = named or ("standard" if plan_is_set else _recorded_plan(root / market / PLAN_RECORD))
        if plan not in PLANS:
            raise SettingError(f"JQUANTS_PLAN is {plan!r}; use one of {', '.join(PLANS)}")
        if market == "simulated":
            start, end = size.start, size.end
        else:
            start, end = _date(env, "ATFT_START", date(2017, 1, 4)), None
        if "ATFT_END" in env:
            end = _date(env, "ATFT_END", size.end)
        if end is not None and start >= end:
            raise SettingError(f"the first date {start} is not before the last date {end}")
        limit = _int(env, "JQUANTS_REQUESTS_PER_MINUTE", 0)
        return cls(
            market=market,
            base_url=env.get("JQUANTS_BASE_URL", ""),
            data_dir=root,
            plan=plan,
            plan_is_set=plan_is_set,
            start=start,
            end=end,
            now=_moment(env, "ATFT_NOW"),
            late_tries=_int(env, "ATFT_LATE_TRIES", 2),
            late_wait_minutes=_int(env, "ATFT_LATE_WAIT_MINUTES", 15),
            requests_per_minute=limit or None,
            size=size,
            thresholds=_thresholds(env),
            training_preset=env.get("ATFT_TRAINING_PRESET", "demo" if market == "simulated" else "small"),
            walk_forward=_walk_forward(env, market == "simulated"),
            contract=env.get("ATFT_CONTRACT", ""),
        )


@functools.cache
def _recorded_plan(path: Path) -> str:
    """The plan found last. Read once per process: what is loaded must not change while it runs."""
    if not path.is_file():
        return "standard"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))["plan"]
    except (ValueError, KeyError, TypeError):
        plan = None
    if plan not in PLANS:
        raise SettingError(f"{path} does not name a plan; remove it, or set JQUANTS_PLAN")
    return str(plan)


def _int(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{name} is {text!r}; it must be a whole number") from None


def _date(env: Mapping[str, str], name: str, default: date) -> date:
    text = env.get(name, "")
    if not text:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{name} is {text!r}; write a date as YYYY-MM-DD") from None


def _moment(env: Mapping[str, str], name: str) -> datetime | None:
    text = env.get(name, "")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{name} is {text!r}; write a Tokyo time as YYYY-MM-DDTHH:MM") from None
    return moment.replace(tzinfo=TOKYO) if moment.tzinfo is None else moment.astimezone(TOKYO)


def _walk_forward(env: Mapping[str, str], simulated: bool) -> WalkForward:
    """Any field can be set as ATFT_WALK_<NAME>; seeds as 7,8,9."""
    default = WalkForward(min_train_days=378, seeds=(7,)) if simulated else WalkForward()
    known = {f"ATFT_WALK_{f.name.upper()}": f.name for f in fields(WalkForward)}
    for name in (n for n in env if n.startswith("ATFT_WALK_")):
        if name not in known:
            raise SettingError(f"{name} is not a setting of the walk-forward; known: {', '.join(sorted(known))}")
    refit = env.get("ATFT_WALK_REFIT", default.refit)
    if refit not in ("days", "year"):
        raise SettingError(f"ATFT_WALK_REFIT is {refit!r}; use 'days' or 'year'")
    text = env.get("ATFT_WALK_SEEDS", "")
    try:
        seeds = tuple(int(seed) for seed in text.split(",")) if text else default.seeds
    except ValueError:
        raise SettingError(f"ATFT_WALK_SEEDS is {text!r}; write whole numbers as 7,8,9") from None
    numbers = {
        name: _int(env, f"ATFT_WALK_{name.upper()}", getattr(default, name))
        for name in ("folds", "test_days", "valid_days", "min_train_days", "workers")
    }
    if min(numbers.values()) < 1 or len(set(seeds)) < len(seeds):
        raise SettingError(f"ATFT_WALK_*: {numbers} must be positive, seeds {seeds} must differ")
    return WalkForward(refit=refit, seeds=seeds, **numbers)


def _thresholds(env: Mapping[str, str]) -> Thresholds:
    """Any threshold can be overridden as ATFT_CHECK_<NAME>, e.g. ATFT_CHECK_MIN_RANK_IC=0.01."""
    given: dict[str, float] = {}
    known = {f"ATFT_CHECK_{f.name.upper()}": f for f in fields(Thresholds)}
    for name in (n for n in env if n.startswith("ATFT_CHECK_")):
        if name not in known:
            raise SettingError(f"{name} is not a threshold; known: {', '.join(sorted(known))}")
        try:
            number = float(env[name])
        except ValueError:
            raise SettingError(f"{name} is {env[name]!r}; it must be a number") from None
        given[known[name].name] = int(number) if known[name].type == "int" else number
    return Thresholds(**given)  # type: ignore[arg-type]
