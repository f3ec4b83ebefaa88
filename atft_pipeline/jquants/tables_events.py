"""Raw tables of company events and of derivatives: what firms announce, and what options and futures traded.

Where the API writes "-" for what is undetermined and "" for what does not apply, the column is text: a number type
would make both null.
"""

from __future__ import annotations

from jquantsapi import constants

from atft_pipeline.jquants.table import Table, typed

_DIVIDEND_TEXTS = " ".join(name for name in constants.FINS_DIVIDEND_COLUMNS_V2 if name != "PubDate")
_SESSIONS = "O H L C EO EH EL EC AO AH AL AC"
_OPTION_COLUMNS = (
    f"Date Code {_SESSIONS} Vo OI Va CM Strike VoOA EmMrgnTrgDiv PCDiv LTD SQD Settle Theo BaseVol UnderPx IV IR"
).split()

FIN_DETAILS = Table(
    name="fin_details",
    path="/fins/details",
    keys=("DiscDate", "Code", "DiscNo"),
    date_column="DiscDate",
    schema=typed("DiscDate", "DiscTime Code DiscNo DocType FS", "", constants.FINS_FS_DETAILS_COLUMNS_V2),
    plan="premium",
    unit="day",
    get=lambda client, first, last: client.get_fin_details_cursor(date_yyyymmdd=first)[0],
    availability="At DiscDate and DiscTime, like the document of the same DiscNo in fin_summary. FS is JSON text.",
    days="calendar",
    dense=False,
    widths={"Code": 5},
)

DIVIDEND = Table(
    name="dividend",
    path="/fins/dividend",
    keys=("PubDate", "RefNo"),
    date_column="PubDate",
    schema=typed("PubDate", _DIVIDEND_TEXTS, "", constants.FINS_DIVIDEND_COLUMNS_V2),
    plan="premium",
    unit="day",
    get=lambda client, first, last: client.get_fin_dividend(date_yyyymmdd=first),
    availability="At PubDate and PubTime (HH:MM); the service adds notices hourly from 12:00 to 19:00.",
    days="calendar",
    dense=False,
    revision="append",
    widths={"Code": 5},
)

EARNINGS_DATE = Table(
    name="earnings_date",
    path="/fins/earnings-date",
    keys=("Code", "FQName", "FYE", "PubDate"),
    date_column="PubDate",
    schema=typed("PubDate SchDate", "FQName FYE Code CoName CoNameEn", "", constants.FIN_EARNINGS_DATE_COLUMNS_V2),
    plan="light",
    unit="day",
    get=lambda client, first, last: client.get_fin_earnings_date(date_yyyymmdd=first),
    availability="About 10:05 on PubDate. A null SchDate is an announced date that was withdrawn or not yet decided.",
    dense=False,
    revision="append",
    widths={"Code": 5, "FYE": 4},
)

OPTIONS_225 = Table(
    name="options_225",
    path="/derivatives/bars/daily/options/225",
    keys=("Date", "Code", "EmMrgnTrgDiv"),
    date_column="Date",
    schema=typed(
        "Date LTD SQD",
        "Code CM EmMrgnTrgDiv PCDiv",
        f"{_SESSIONS} Vo OI Va Strike VoOA Settle Theo BaseVol UnderPx IV IR",
        _OPTION_COLUMNS,
    ),
    plan="standard",
    unit="day",
    get=lambda client, first, last: client.get_drv_bars_daily_opt_225(date_yyyymmdd=first),
    availability="About 03:00 on the day after Date. 0.0 is a price without a trade; a null one had no session.",
    even=False,
    standing=True,
)

FUTURES = Table(
    name="futures",
    path="/derivatives/bars/daily/futures",
    keys=("Date", "Code", "EmMrgnTrgDiv"),
    date_column="Date",
    schema=typed(
        "Date LTD SQD",
        "Code ProdCat CM EmMrgnTrgDiv CCMFlag",
        f"{_SESSIONS} MO MH ML MC Vo OI Va VoOA Settle",
        constants.DERIVATIVES_FUTURES_COLUMNS_V2,
    ),
    plan="premium",
    unit="day",
    get=lambda client, first, last: client.get_drv_bars_daily_fut(date_yyyymmdd=first),
    availability="About 03:00 on the day after Date. 0.0 is a price without a trade; a null one had no session.",
    even=False,
    standing=True,
)

EVENT_TABLES = (EARNINGS_DATE, OPTIONS_225, FIN_DETAILS, DIVIDEND, FUTURES)
