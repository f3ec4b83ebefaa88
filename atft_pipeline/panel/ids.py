"""Integer ids of listing attributes: constants of the exchange's code lists, never derived from the data at hand."""

from __future__ import annotations

from collections.abc import Mapping

MARKET_IDS: Mapping[str, int] = {
    "0101": 1,  # first section
    "0102": 2,  # second section
    "0104": 3,  # Mothers
    "0105": 4,  # TOKYO PRO Market
    "0106": 5,  # JASDAQ Standard
    "0107": 6,  # JASDAQ Growth
    "0109": 7,  # others: funds
    "0111": 8,  # Prime
    "0112": 9,  # Standard
    "0113": 10,  # Growth
}

SECTOR17_IDS: Mapping[str, int] = {**{str(code): code for code in range(1, 18)}, "99": 18}

_SECTOR33 = (
    "0050 1050 2050 3050 3100 3150 3200 3250 3300 3350 3400 3450 3500 3550 3600 3650 3700 3750 3800 "
    "4050 5050 5100 5150 5200 5250 6050 6100 7050 7100 7150 7200 8050 9050"
)
SECTOR33_CODES = tuple(_SECTOR33.split())
"""The 33 sectors in the official ascending list."""

SECTOR33_IDS: Mapping[str, int] = {**{code: rank for rank, code in enumerate(SECTOR33_CODES, 1)}, "9999": 34}

SCALE_IDS: Mapping[str, int] = {
    "TOPIX Core30": 1,
    "TOPIX Large70": 2,
    "TOPIX Mid400": 3,
    "TOPIX Small 1": 4,
    "TOPIX Small 2": 5,
}
"""Anything else, such as "-", is 0."""

MARGIN_IDS: Mapping[str, int] = {"1": 1, "2": 2, "3": 3}
"""1 margin trading only, 2 loanable, 3 other."""

UNIVERSE_MARKETS = (1, 2, 3, 5, 6, 8, 9, 10)
"""Markets in cross-sections: neither the professionals' market nor funds."""

UNIVERSE_SECTORS = range(1, 34)
"""Sectors in cross-sections: 9999 (funds, preferred equity) is left out."""
