"""The endpoints that the exchange serves: paths, keys, parameters and what each requires. Declarations only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    code: re.Pattern[str] = STOCK_CODE
    filters: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Parameter name -> (column, allowed values; empty: any)."""
    order: tuple[str, ...] = ()
    """Columns that order the answer, where that is not the stored order."""
    paginated: bool = True


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
        ),
        Endpoint(
            "investor_types",
            "/equities/investor-types",
            "PubDate",
            ("PubDate", "StDate", "EnDate", "Section"),
            filters={"section": ("Section", ())},
        ),
    )
}

TABLES: dict[str, Endpoint] = {endpoint.table: endpoint for endpoint in ENDPOINTS.values()}
