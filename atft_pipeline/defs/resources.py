"""What an asset needs from outside: the settings, and a connection to J-Quants or to the simulated exchange."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from atft_pipeline.exchange.process import ensure_market, running_exchange
from atft_pipeline.jquants.checks.coverage import sessions_of
from atft_pipeline.jquants.checks.publication import TOKYO, asked_until
from atft_pipeline.jquants.client import Client, connect
from atft_pipeline.jquants.plans import get_plan, settled_plan
from atft_pipeline.jquants.table import Table
from atft_pipeline.settings import PLAN_RECORD, Settings

SIMULATED_REQUESTS_PER_MINUTE = 120_000
"""The loopback exchange has no quota worth waiting for; the plan's real limit applies to the real service."""


class Pipeline(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings and the API connection. Settings come from the environment; `overrides` go on top of it."""

    overrides: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)
    _exit: ExitStack = PrivateAttr()
    _client: Client | None = PrivateAttr(default=None)
    _run: str = PrivateAttr(default="")
    _tell: Callable[[str], None] = PrivateAttr(default=print)

    @property
    def settings(self) -> Settings:
        return Settings.from_env({**os.environ, **self.overrides})

    @property
    def lake(self) -> Path:
        return self.settings.lake

    @property
    def market_name(self) -> str:
        """What the data is, in one line, for reports and metadata."""
        settings = self.settings
        return settings.size.name if settings.market == "simulated" else f"J-Quants, plan {settings.plan}"

    @property
    def last_date(self) -> date:
        """The newest date that may be asked for: the configured end, or today in Tokyo if that is earlier."""
        return self.settings.today()

    def asked_until(self, table: Table) -> date:
        """The newest date to ask `table` for: of real data only what is published by now, as options come at night."""
        if self.settings.market == "simulated":
            return self.last_date
        return asked_until(table, self.last_date, sessions_of(self.lake), self.settings.clock())

    @property
    def now(self) -> datetime | None:
        """The market's clock, by which the newest prices must be there: now, less the days that the plan hides, and not
        after the configured last date; None in a simulated market, which ends."""
        settings = self.settings
        if settings.market == "simulated":
            return None
        now = settings.clock() - timedelta(days=get_plan(settings.plan).hidden_days)
        return min(now, datetime.combine(settings.end, time.max, TOKYO)) if settings.end else now

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Pipeline"]:
        with ExitStack() as stack:
            self._exit = stack
            self._client = None
            self._run = context.run.run_id if context.run else ""
            self._tell = context.log.info if context.log else print
            yield self

    def client(self) -> Client:
        """The J-Quants client, connected on first use; a simulated market is generated and served until the run ends.

        Processes that use the same lake share one request limit.
        """
        if self._client is None:
            settings = self.settings
            if settings.market == "simulated":
                market = ensure_market(settings.size, settings.market_dir)
                limit = settings.requests_per_minute or SIMULATED_REQUESTS_PER_MINUTE
                exchange = self._exit.enter_context(
                    running_exchange(settings.market_dir, plan=settings.plan, requests_per_minute=limit)
                )
                self._client = connect(
                    exchange.base_url,
                    exchange.api_key,
                    settings.plan,
                    limit,
                    origin=f"{settings.size.name}, version {market['version']}",
                    today=settings.size.end,
                )
            else:
                plan = settings.plan if settings.plan_is_set else self._probed_plan(settings)
                self._client = self._connected(settings, plan)
        return self._client

    def _probed_plan(self, settings: Settings) -> str:
        """The plan that the service says the key has; raises `SettingError` when it lacks tables that are loaded."""
        asking = self._connected(settings, settings.plan)
        record = settings.lake / PLAN_RECORD
        return settled_plan(asking, record, settings.plan, self._run, asking.today, self._tell).name

    @staticmethod
    def _connected(settings: Settings, plan: str) -> Client:
        # The key is read from the environment there, never from `overrides`, which the UI shows.
        limits = settings.lake / "requests.json"
        today = settings.clock().date()
        return connect(settings.base_url, "", plan, settings.requests_per_minute, limits_file=limits, today=today)
