"""The tables that a market is written to, each as a function of the drawn market.

A source draws whatever the table needs once, and returns a function that gives the rows of a span of dates: those
whose date column (the one of the endpoint) lies in [first, last], both inclusive. Consecutive spans put together are
the table of the whole; nothing may be drawn per span. So ten years of the full market are written span by span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import polars as pl

from atft_pipeline.exchange.bars import daily_bars
from atft_pipeline.exchange.breakdown import breakdown, short_ratio
from atft_pipeline.exchange.details import details
from atft_pipeline.exchange.dividends import dividends
from atft_pipeline.exchange.drawing import Market
from atft_pipeline.exchange.earnings_dates import earnings_dates
from atft_pipeline.exchange.flows import investor_types
from atft_pipeline.exchange.futures import futures
from atft_pipeline.exchange.indices import indices, topix
from atft_pipeline.exchange.margin import margin_interest
from atft_pipeline.exchange.margin_alert import margin_alert
from atft_pipeline.exchange.options import options_225
from atft_pipeline.exchange.short_reports import short_sale_reports
from atft_pipeline.exchange.statements import fin_summary
from atft_pipeline.exchange.tokyo_calendar import trading_calendar
from atft_pipeline.exchange.universe import master

SpanTable = Callable[[date, date], pl.DataFrame]
"""Rows of the table from the first to the last date, sorted by date and key, columns as the API names them."""

Source = Callable[[Market], SpanTable]

SOURCES: Mapping[str, Source] = {
    "calendar": trading_calendar,
    "master": master,
    "bars_daily": daily_bars,
    "topix": topix,
    "indices": indices,
    "fin_summary": fin_summary,
    "investor_types": investor_types,
    "margin_interest": margin_interest,
    "margin_alert": margin_alert,
    "short_ratio": short_ratio,
    "short_sale_report": short_sale_reports,
    "breakdown": breakdown,
    "earnings_date": earnings_dates,
    "options_225": options_225,
    "fin_details": details,
    "dividend": dividends,
    "futures": futures,
}
"""Table name -> source, in the order in which a market writes them."""
