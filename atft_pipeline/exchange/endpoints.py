"""The endpoints that the exchange serves: paths, keys, parameters and what each requires. Declarations only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from atft_pipeline.exchange.sectors import OTHER, SECTORS

STOCK_CODE = re.compile(r"[0-9][0-9A-Z][0-9][0-9A-Z][0-9]?")
INDEX_CODE = re.compile(r"[0-9A-F]{4}")


@dataclass(frozen=True)
class Endpoint:
    """One path of the API and its parameter rules."""

    table: str
    path: str
    date_column: str
    keys: tuple[str, ...]
    required: tuple[str, ...] = ()
    """At least one of these parameters must be given."""
    params: tuple[str, ...] = ("from", "to")
    dates: tuple[str, str, str] = ("date", "from", "to")
    """What the parameters are called that name a day, and the first and last day, of `date_column`."""
    date_filters: Mapping[str, str] = field(default_factory=dict)
    """Parameter name -> another date column; it stands alone, without the parameters of `dates`, where `lone`."""
    lone: tuple[str, ...] = ()
    range_needs_code: bool = False
    code: re.Pattern[str] = STOCK_CODE
    filters: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Parameter name -> (column, allowed values; empty: any)."""
    order: tuple[str, ...] = ()
    """Columns that order the answer, where that is not the stored order."""
    paginated: bool = True
    exclusive: bool = False
    """Exactly one of `required` must be given, not at least one."""
    cursor: bool = False
    """Premium's last page carries a cursor, and a request may ask for what came after one."""
    objects: tuple[str, ...] = ()
    """Columns that hold JSON text and go out as JSON objects."""


_BY_CODE_OR_DATE = ("code", "date", "from", "to")

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            "calendar",
            "/markets/calendar",
            "Date",
            ("Date",),
            filters={"hol_div": ("HolDiv", ("0", "1", "2", "3"))},
            paginated=False,
        ),
        Endpoint("master", "/equities/master", "Date", ("Date", "Code"), params=("code", "date")),
        Endpoint(
            "bars_daily",
            "/equities/bars/daily",
            "Date",
            ("Date", "Code"),
            required=("date", "code"),
            params=_BY_CODE_OR_DATE,
        ),
        Endpoint("topix", "/indices/bars/daily/topix", "Date", ("Date",)),
        Endpoint(
            "indices",
            "/indices/bars/daily",
            "Date",
            ("Date", "Code"),
            required=("date", "code"),
            params=_BY_CODE_OR_DATE,
            code=INDEX_CODE,
        ),
        Endpoint(
            "fin_summary",
            "/fins/summary",
            "DiscDate",
            ("DiscDate", "DiscTime", "Code", "DiscNo"),
            required=("date", "code"),
            params=("code", "date"),
            order=("DiscNo",),
            cursor=True,
        ),
        Endpoint(
            "investor_types",
            "/equities/investor-types",
            "PubDate",
            ("PubDate", "StDate", "EnDate", "Section"),
            filters={"section": ("Section", ())},
        ),
        Endpoint(
            "margin_interest",
            "/markets/margin-interest",
            "Date",
            ("Date", "Code"),
            required=("code", "date", "published_date"),
            params=_BY_CODE_OR_DATE,
            date_filters={"published_date": "PubDate"},
            lone=("published_date",),
            range_needs_code=True,
        ),
        Endpoint(
            "margin_alert",
            "/markets/margin-alert",
            "PubDate",
            ("PubDate", "Code", "AppDate"),
            required=("date", "code"),
            params=_BY_CODE_OR_DATE,
        ),
        Endpoint(
            "short_ratio",
            "/markets/short-ratio",
            "Date",
            ("Date", "S33"),
            required=("s33", "date"),
            params=("date", "from", "to"),
            filters={"s33": ("S33", (*(sector.s33 for sector in SECTORS), OTHER.s33))},
        ),
        Endpoint(
            "short_sale_report",
            "/markets/short-sale-report",
            "DiscDate",
            ("DiscDate", "CalcDate", "Code", "SSName", "FundName", "DICName"),
            required=("code", "disc_date", "calc_date"),
            params=("code", "disc_date", "disc_date_from", "disc_date_to"),
            dates=("disc_date", "disc_date_from", "disc_date_to"),
            date_filters={"calc_date": "CalcDate"},
            range_needs_code=True,
        ),
        Endpoint(
            "breakdown",
            "/markets/breakdown",
            "Date",
            ("Date", "Code"),
            required=("date", "code"),
            params=_BY_CODE_OR_DATE,
        ),
        Endpoint(
            "earnings_date",
            "/fins/earnings-date",
            "PubDate",
            ("PubDate", "Code", "FQName", "FYE"),
            required=("code", "date", "scheduled_date"),
            params=("code", "date", "scheduled_date"),
            exclusive=True,
        ),
        Endpoint(
            "options_225",
            "/derivatives/bars/daily/options/225",
            "Date",
            ("Date", "Code", "EmMrgnTrgDiv"),
            required=("date",),
            params=("date",),
        ),
        Endpoint(
            "fin_details",
            "/fins/details",
            "DiscDate",
            ("DiscDate", "DiscTime", "Code", "DiscNo"),
            required=("date", "code"),
            params=("code", "date"),
            order=("DiscNo",),
            cursor=True,
            objects=("FS",),
        ),
        Endpoint(
            "dividend",
            "/fins/dividend",
            "PubDate",
            ("PubDate", "Code", "RefNo"),
            required=("date", "code"),
            params=_BY_CODE_OR_DATE,
        ),
        Endpoint(
            "futures",
            "/derivatives/bars/daily/futures",
            "Date",
            ("Date", "Code", "EmMrgnTrgDiv"),
            required=("date",),
            params=("date",),
            filters={"category": ("ProdCat", ()), "contract_flag": ("CCMFlag", ())},
        ),
    )
}

TABLES: dict[str, Endpoint] = {endpoint.table: endpoint for endpoint in ENDPOINTS.values()}
