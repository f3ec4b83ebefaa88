"""The four J-Quants plans: request limits, history and which tables they include (official plan table, 2026)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.lake.store import read_json, write_json
from atft_pipeline.settings import PLANS, SettingError

if TYPE_CHECKING:
    from jquantsapi import ClientV2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One subscription. The window rolls: what was fetched while inside it stays in the lake."""

    name: str
    requests_per_minute: int
    history_years: int
    hidden_days: int = 0
    """The newest days that the plan does not show."""

    def window(self, today: date) -> tuple[date, date]:
        """First and last date that the plan covers on `today`."""
        last = today - timedelta(days=self.hidden_days)
        try:
            return last.replace(year=last.year - self.history_years), last
        except ValueError:  # 29 February
            return last.replace(year=last.year - self.history_years, day=28), last

    def includes(self, tier: str) -> bool:
        """Whether a table of plan `tier` is part of this plan."""
        return PLANS.index(self.name) >= PLANS.index(tier)


FREE = Plan("free", requests_per_minute=5, history_years=2, hidden_days=84)
LIGHT = Plan("light", requests_per_minute=60, history_years=5)
STANDARD = Plan("standard", requests_per_minute=120, history_years=10)
PREMIUM = Plan("premium", requests_per_minute=500, history_years=20)

FINS_PER_MINUTE = 60
"""/fins/summary and /fins/details each have this cap of their own, on every plan."""

_BY_NAME = {plan.name: plan for plan in (FREE, LIGHT, STANDARD, PREMIUM)}


def get_plan(name: str) -> Plan:
    """The plan called `name`; raises `SettingError` for another word."""
    if name not in _BY_NAME:
        raise SettingError(f"JQUANTS_PLAN is {name!r}; use one of {', '.join(PLANS)}")
    return _BY_NAME[name]


def settled_plan(
    client: ClientV2, record: Path, loaded: str, run: str, today: date, tell: Callable[[str], None] = log.info
) -> Plan:
    """The key's plan, asked of the service once per run and recorded at `record`.

    `loaded`: the plan whose tables this process has loaded. Raises `SettingError` when the key's plan gives fewer: the
    record then makes the next start load what the plan has. A larger plan goes on with what is loaded, and says so.
    """
    known = read_json(record) if record.exists() else {}
    if run and known.get("run") == run:
        plan = get_plan(known["plan"])
    else:
        plan = probe_plan(client, today)
        write_json(record, {"plan": plan.name, "found": today.isoformat(), "run": run})
        tell(f"the key's plan is {plan.name} (JQUANTS_PLAN is empty, so the service was asked)")
    if not plan.includes(loaded):
        raise SettingError(
            f"the key's plan is {plan.name}, but the tables of plan {loaded} are loaded: set JQUANTS_PLAN={plan.name}, "
            "or leave it empty and start again (reload the code location): the plan is recorded now"
        )
    if plan.name != loaded:
        tell(f"plan {plan.name} has more tables than the loaded plan {loaded}: reload the code location to use them")
    return plan


def probe_plan(client: ClientV2, today: date) -> Plan:
    """Find the key's plan with at most three requests: the first endpoint that is not refused (403) names it.

    A 400 means that the endpoint is included but the date is not, so it counts as included.
    """
    day = (today - timedelta(days=FREE.hidden_days + 30)).isoformat()
    probes = (
        (PREMIUM, lambda: client.get_fin_details_cursor(date_yyyymmdd=day)),
        (STANDARD, lambda: client.get_idx_bars_daily(date_yyyymmdd=day)),
        (LIGHT, lambda: client.get_eq_investor_types(from_yyyymmdd=day, to_yyyymmdd=day)),
        (FREE, lambda: client.get_mkt_calendar(from_yyyymmdd=day, to_yyyymmdd=day)),
    )
    for plan, ask in probes:
        try:
            ask()
        except ExchangeError as error:
            if error.status == 403 and plan is not FREE:
                continue
            if error.status == 400:
                return plan
            raise
        return plan
    raise AssertionError("the last probe answers or raises")
