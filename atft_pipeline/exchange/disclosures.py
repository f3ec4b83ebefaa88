"""The documents of a market with their figures, for the tables that must agree with /fins/summary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atft_pipeline.exchange.accounts import Accounts, Floats, draw_accounts
from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.filings import Documents
from atft_pipeline.exchange.statements import draw_figures


@dataclass(frozen=True)
class Disclosures:
    """Every document of the history; `numbers` has one array per field of /fins/summary, NaN where it is empty."""

    accounts: Accounts
    documents: Documents
    numbers: dict[str, Floats]

    def stated(self, name: str) -> Floats:
        """A figure on the basis that the company reports: consolidated, or its own where there is no group."""
        return np.where(np.isnan(self.numbers[name]), self.numbers[f"NC{name}"], self.numbers[name])


def accounts_of(market: Market) -> Accounts:
    """The figures behind all disclosures of `market`."""
    return draw_accounts(market.universe, market.hidden.linear, market.trading_days, market.size.seed)


def disclosures_of(market: Market) -> Disclosures:
    """The documents of `market`, number by number those of its fin_summary table."""
    accounts = accounts_of(market)
    adjustment = np.asarray(np.cumprod(market.closes.factor, axis=0), dtype=np.float64)
    documents, numbers = draw_figures(
        market.universe,
        accounts,
        market.hidden.linear,
        adjustment,
        market.business,
        market.trading_days,
        market.size.seed,
    )
    return Disclosures(accounts, documents, numbers)
