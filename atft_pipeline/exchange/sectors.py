"""The TSE's 33 sectors: codes, names, the 17-sector parent, and how many listed issues each has."""

from __future__ import annotations

from typing import NamedTuple


class Sector(NamedTuple):
    """One row of the sector table; `issues` is the approximate number of listed issues in the real market."""

    s33: str
    name: str
    english: str
    s17: str
    issues: int


SECTORS: tuple[Sector, ...] = (
    Sector("0050", "水産・農林業", "Fishery", "1", 11),
    Sector("1050", "鉱業", "Mining", "2", 6),
    Sector("2050", "建設業", "Construction", "3", 155),
    Sector("3050", "食料品", "Foods", "1", 125),
    Sector("3100", "繊維製品", "Textiles", "4", 50),
    Sector("3150", "パルプ・紙", "Paper", "4", 24),
    Sector("3200", "化学", "Chemicals", "4", 210),
    Sector("3250", "医薬品", "Pharma", "5", 75),
    Sector("3300", "石油･石炭製品", "Oil", "2", 9),
    Sector("3350", "ゴム製品", "Rubber", "6", 18),
    Sector("3400", "ガラス･土石製品", "Glass", "3", 55),
    Sector("3450", "鉄鋼", "Steel", "7", 42),
    Sector("3500", "非鉄金属", "Nonferrous", "7", 33),
    Sector("3550", "金属製品", "Metal", "3", 90),
    Sector("3600", "機械", "Machinery", "8", 220),
    Sector("3650", "電気機器", "Electric", "9", 235),
    Sector("3700", "輸送用機器", "Transport Equipment", "6", 85),
    Sector("3750", "精密機器", "Precision", "9", 50),
    Sector("3800", "その他製品", "Other Products", "10", 110),
    Sector("4050", "電気･ガス業", "Power and Gas", "11", 27),
    Sector("5050", "陸運業", "Land Transport", "12", 60),
    Sector("5100", "海運業", "Marine", "12", 11),
    Sector("5150", "空運業", "Air", "12", 6),
    Sector("5200", "倉庫･運輸関連業", "Warehousing", "12", 36),
    Sector("5250", "情報･通信業", "Information", "10", 620),
    Sector("6050", "卸売業", "Wholesale", "13", 310),
    Sector("6100", "小売業", "Retail", "14", 340),
    Sector("7050", "銀行業", "Bank", "15", 80),
    Sector("7100", "証券､商品先物取引業", "Securities", "16", 40),
    Sector("7150", "保険業", "Insurance", "16", 15),
    Sector("7200", "その他金融業", "Other Financing", "16", 40),
    Sector("8050", "不動産業", "Real Estate", "17", 155),
    Sector("9050", "サービス業", "Services", "10", 560),
)

OTHER = Sector("9999", "その他", "Other", "99", 0)
"""ETFs, REITs and preferred shares."""

BANKS = next(i for i, sector in enumerate(SECTORS) if sector.s33 == "7050")

S17_NAMES: dict[str, str] = {
    "1": "食品",
    "2": "エネルギー資源",
    "3": "建設・資材",
    "4": "素材・化学",
    "5": "医薬品",
    "6": "自動車・輸送機",
    "7": "鉄鋼・非鉄",
    "8": "機械",
    "9": "電機・精密",
    "10": "情報通信・サービスその他",
    "11": "電気・ガス",
    "12": "運輸・物流",
    "13": "商社・卸売",
    "14": "小売",
    "15": "銀行",
    "16": "金融（除く銀行）",
    "17": "不動産",
    "99": "その他",
}

MARKET_NAMES: dict[str, str] = {
    "0101": "東証一部",
    "0102": "東証二部",
    "0104": "マザーズ",
    "0106": "JASDAQ スタンダード",
    "0107": "JASDAQ グロース",
    "0109": "その他",
    "0111": "プライム",
    "0112": "スタンダード",
    "0113": "グロース",
}


def members_per_sector(stocks: int) -> list[int]:
    """How many of `stocks` issues each sector gets: every sector first (up to 5, 3 in the tiniest), then by weight."""
    if stocks < len(SECTORS):
        largest = sorted(range(len(SECTORS)), key=lambda i: -SECTORS[i].issues)[:stocks]
        return [int(i in largest) for i in range(len(SECTORS))]
    floor = max(1, min(5, stocks // 40))
    counts = [min(floor, 3) if sector.issues < 12 else floor for sector in SECTORS]
    total = sum(sector.issues for sector in SECTORS)
    missing = [max(0.0, stocks * sector.issues / total - count) for sector, count in zip(SECTORS, counts, strict=True)]
    left = stocks - sum(counts)
    share = [left * gap / sum(missing) for gap in missing]
    counts = [count + int(part) for count, part in zip(counts, share, strict=True)]
    by_remainder = sorted(range(len(SECTORS)), key=lambda i: int(share[i]) - share[i])
    for i in by_remainder[: stocks - sum(counts)]:
        counts[i] += 1
    return counts
