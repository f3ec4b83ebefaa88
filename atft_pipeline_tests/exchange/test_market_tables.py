"""The written tables of a small market: keys, identities, quirks. The market spans the segment change of April 2022."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import jquantsapi.constants as client
import numpy as np
import polars as pl
import pytest

from atft_pipeline.exchange import market as market_module
from atft_pipeline.exchange.adjustment import adjusted, splits_of
from atft_pipeline.exchange.drawing import MarketSizeError
from atft_pipeline.exchange.indices import sector_code
from atft_pipeline.exchange.market import TABLES, generate
from atft_pipeline.exchange.plants import PlantError
from atft_pipeline.exchange.prices import limit_width, on_tick, tick_size
from atft_pipeline.exchange.sectors import SECTORS
from atft_pipeline.exchange.sessions import COLUMNS as SESSION_COLUMNS
from atft_pipeline.exchange.tokyo_calendar import business_days
from atft_pipeline.settings import MarketSize

SIZE = MarketSize(stocks=60, start=date(2022, 1, 4), end=date(2022, 8, 31), seed=3, plant="demo")
LATE = MarketSize(stocks=40, start=date(2023, 10, 2), end=date(2024, 6, 28), seed=5, plant="null")
PRICES = ["O", "H", "L", "C", "Vo", "Va"]


def tables_of(size: MarketSize, folder: Path) -> dict[str, pl.DataFrame]:
    generate(size, folder)
    return {name: pl.read_parquet(folder / "tables" / f"{name}.parquet") for name in TABLES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange") / "market"


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, pl.DataFrame]:
    return tables_of(SIZE, folder)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    return tables_of(LATE, tmp_path_factory.mktemp("late") / "market")


def traded(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.filter(pl.col("C").is_not_null())


def test_the_same_size_gives_the_same_bytes_and_another_seed_others(
    folder: Path, tables: object, tmp_path: Path
) -> None:
    first = json.loads((folder / "market.json").read_text())
    again = generate(SIZE, tmp_path / "again")
    other = generate(MarketSize(**{**vars(SIZE), "seed": 4}), tmp_path / "other")
    assert again == first
    for path in sorted(folder.rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path.name
    changed = {name for name in TABLES if other["tables"][name]["sha256"] != first["tables"][name]["sha256"]}
    assert changed == set(TABLES) - {"calendar"}


def test_a_market_that_is_there_is_not_written_again(folder: Path, tables: object) -> None:
    before = (folder / "tables" / "bars_daily.parquet").stat().st_mtime_ns
    said: list[str] = []
    assert generate(SIZE, folder, said.append)["stocks"] == 60
    assert said == []
    assert (folder / "tables" / "bars_daily.parquet").stat().st_mtime_ns == before


def test_a_market_with_a_missing_table_or_an_older_version_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = MarketSize(stocks=12, start=date(2023, 1, 4), end=date(2023, 3, 31), plant="null")
    out = tmp_path / "market"
    generate(size, out)
    (out / "tables" / "topix.parquet").unlink()
    generate(size, out)
    assert (out / "tables" / "topix.parquet").exists()
    monkeypatch.setattr(market_module, "VERSION", market_module.VERSION + 1)
    said: list[str] = []
    generate(size, out, said.append)
    assert said
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["market"]


def test_a_failed_generation_leaves_the_old_market_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = MarketSize(stocks=12, start=date(2023, 1, 4), end=date(2023, 3, 31), plant="null")
    out = tmp_path / "market"
    generate(size, out)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(market_module, "_write_oracle", fail)
    with pytest.raises(OSError, match="disk full"):
        generate(MarketSize(**{**vars(size), "seed": 8}), out)
    assert json.loads((out / "market.json").read_text())["seed"] == size.seed


def test_impossible_markets_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MarketSizeError, match="needs 12 stocks and 30 business days"):
        generate(MarketSize(stocks=5), tmp_path / "market")
    with pytest.raises(PlantError):
        generate(MarketSize(plant="magic"), tmp_path / "market")
    assert not (tmp_path / "market").exists()


def test_tables_have_exactly_the_fields_that_the_client_knows(tables: dict[str, pl.DataFrame]) -> None:
    assert tables["master"].columns == client.EQ_MASTER_COLUMNS_V2
    assert tables["fin_summary"].columns == client.FIN_SUMMARY_COLUMNS_V2
    assert tables["investor_types"].columns == client.EQ_INVESTOR_TYPES_COLUMNS_V2
    session = re.compile(r"[MA](O|H|L|C|UL|LL|Vo|Va|Adj(O|H|L|C|Vo))")
    plain = [name for name in client.EQ_BARS_DAILY_COLUMNS_V2 if not session.fullmatch(name)]
    assert tables["bars_daily"].columns == [*plain, "MktCap", "ExRT", *SESSION_COLUMNS]
    assert {*SESSION_COLUMNS} == {*client.EQ_BARS_DAILY_COLUMNS_V2} - {*plain}


def test_rows_are_unique_and_sorted(tables: dict[str, pl.DataFrame]) -> None:
    keys = {"calendar": ["Date"], "topix": ["Date"], "fin_summary": ["DiscDate", "Code", "DiscTime", "DiscNo"]}
    keys["investor_types"] = ["PubDate", "Section", "StDate"]
    keys["margin_alert"] = ["PubDate", "Code", "AppDate"]
    keys["short_ratio"] = ["Date", "S33"]
    keys["earnings_date"] = ["PubDate", "Code", "FQName", "FYE"]
    keys["fin_details"] = ["DiscDate", "Code", "DiscTime", "DiscNo"]
    keys["dividend"] = ["PubDate", "Code", "RefNo"]
    keys["options_225"] = keys["futures"] = ["Date", "Code", "EmMrgnTrgDiv"]
    keys["short_sale_report"] = ["DiscDate", "Code", "CalcDate", "SSName", "FundName"]
    for name, table in tables.items():
        key = table.select(keys.get(name, ["Date", "Code"]))
        assert key.is_unique().all(), name
        assert key.equals(key.sort(key.columns)), name
    assert tables["fin_summary"]["DiscNo"].is_unique().all()


def test_every_listed_code_has_one_bar_on_every_business_day_of_its_life(tables: dict[str, pl.DataFrame]) -> None:
    days = [day.isoformat() for day in business_days(SIZE.start, SIZE.end)]
    bars = tables["bars_daily"].select("Date", "Code")
    assert bars.equals(tables["master"].select("Date", "Code"))
    life = bars.group_by("Code").agg(pl.col("Date").min().alias("first"), pl.col("Date").max().alias("last"), pl.len())
    for _, first, last, count in life.iter_rows():
        assert count == sum(first <= day <= last for day in days)
    assert (life["first"] > days[0]).any()
    assert (life["last"] < days[-1]).any()


def test_the_open_and_close_lie_inside_the_range_and_on_ticks_within_the_limits(
    tables: dict[str, pl.DataFrame],
) -> None:
    bars = traded(tables["bars_daily"]).join(tables["master"].select("Date", "Code", "ScaleCat"), on=["Date", "Code"])
    o, h, lo, c = (bars[name].to_numpy() for name in "OHLC")
    assert np.all(lo <= np.minimum(o, c))
    assert np.all(h >= np.maximum(o, c))
    assert np.all(h > lo)
    fine = bars["ScaleCat"].is_in(["TOPIX Core30", "TOPIX Large70"]).to_numpy()
    for price in (o, h, lo, c):
        assert np.allclose(price, on_tick(price, fine), atol=1e-6)
    vwap = (bars["Va"] / bars["Vo"]).to_numpy()
    assert np.all((vwap >= lo - 0.01) & (vwap <= h + 0.01))
    moved = bars.sort("Code", "Date").with_columns(base=pl.col("C").shift(1).over("Code") * pl.col("AdjFactor"))
    moved = moved.filter(pl.col("base").is_not_null())
    width = limit_width(moved["base"].to_numpy())
    after_gap = moved["H"].to_numpy() > moved["base"].to_numpy() + width + 1e-6
    assert after_gap.mean() < 0.002  # only after days without a trade, when the base moved unseen


def test_ticks_and_limits_follow_the_exchanges_tables() -> None:
    price = np.array([999.0, 3000.0, 3001.0, 29_990.0])
    assert tick_size(price, np.zeros(4, dtype=bool)).tolist() == [1, 1, 5, 10]
    assert tick_size(price, np.ones(4, dtype=bool)).tolist() == [0.1, 0.5, 1, 5]
    assert limit_width(np.array([99.0, 100.0, 999.0, 1000.0, 1500.0])).tolist() == [30, 50, 150, 300, 400]


def test_limit_flags_are_set_where_the_price_touches_the_limit(tmp_path: Path) -> None:
    size = MarketSize(stocks=200, start=date(2021, 7, 1), end=date(2022, 6, 30), seed=7, plant="null")
    bars = traded(tables_of(size, tmp_path / "market")["bars_daily"])
    bars = bars.sort("Code", "Date").with_columns(base=pl.col("C").shift(1).over("Code") * pl.col("AdjFactor"))
    flagged = bars.filter((pl.col("UL") == "1") & pl.col("base").is_not_null())
    assert flagged.height > 0
    reached = (flagged["H"] - flagged["base"]).to_numpy()
    assert np.all(reached >= 0.9 * limit_width(flagged["base"].to_numpy()))
    assert ((bars["UL"] == "1") & (bars["LL"] == "1")).sum() == 0


def test_quotes_of_a_day_without_a_trade_are_null_together(tables: dict[str, pl.DataFrame]) -> None:
    bars = tables["bars_daily"]
    missing = bars.select(pl.col(name).is_null() for name in [*PRICES, "AdjO", "AdjH", "AdjL", "AdjC", "AdjVo"])
    assert missing.sum_horizontal().is_in([0, missing.width]).all()
    assert (bars["Vo"] == 0).sum() == 0
    assert bars.filter(pl.col("C").is_null())["MktCap"].is_null().all()
    streak = bars.sort("Code", "Date").select(
        pl.col("C").is_null().rle_id().over("Code").alias("run"), "Code", pl.col("C").is_null().alias("none")
    )
    assert streak.filter("none").group_by("Code", "run").len()["len"].max() >= 8  # the halted stock


def test_adjusted_prices_are_raw_prices_times_the_later_factors(tables: dict[str, pl.DataFrame]) -> None:
    bars = tables["bars_daily"].sort("Code", "Date", descending=[False, True])
    later = bars.with_columns(later=pl.col("AdjFactor").cum_prod().over("Code") / pl.col("AdjFactor"))
    later = traded(later)
    for name in "OHLC":
        assert np.allclose(later[f"Adj{name}"], later[name] * later["later"], atol=0.0501)
    assert np.allclose(later["AdjVo"], later["Vo"] / later["later"], atol=0.0501)


def test_adjusting_anew_gives_the_very_prices_that_the_market_stores(tables: dict[str, pl.DataFrame]) -> None:
    bars = tables["bars_daily"]
    splits = splits_of(bars)
    blank = bars.with_columns(pl.lit(None, pl.Float64).alias(f"Adj{name}") for name in ("O", "H", "L", "C", "Vo"))
    assert len(splits) >= 2 and adjusted(blank, splits, bars["Code"].unique()).equals(bars)
    without = adjusted(bars, {}, splits)
    changed = without.filter(without["AdjC"].ne_missing(bars["AdjC"]))["Code"]
    assert set(changed) == set(splits), "only the issues that split, and all of them"


def test_splits_and_reverse_splits_stand_on_their_ex_date_row(tables: dict[str, pl.DataFrame]) -> None:
    bars = tables["bars_daily"].sort("Code", "Date").with_columns(before=pl.col("C").shift(1).over("Code"))
    events = bars.filter(pl.col("AdjFactor") != 1)
    assert (events["AdjFactor"] < 1).any()
    assert (events["AdjFactor"] > 1).any()
    assert events.filter(pl.col("AdjFactor") < 1)["ExRT"].unique().to_list() == ["1"]
    assert events.filter(pl.col("AdjFactor") > 1)["ExRT"].unique().to_list() == ["2"]
    assert bars.filter(pl.col("AdjFactor") == 1)["ExRT"].is_null().all()
    known = events.drop_nulls(["C", "before"])
    assert ((known["C"] / (known["before"] * known["AdjFactor"]) - 1).abs() < 0.3).all()


def test_segments_change_on_the_fourth_of_april_2022(tables: dict[str, pl.DataFrame]) -> None:
    master = tables["master"]
    before = set(master.filter(pl.col("Date") < "2022-04-04")["Mkt"])
    after = set(master.filter(pl.col("Date") >= "2022-04-04")["Mkt"])
    assert before <= {"0101", "0102", "0104", "0106", "0107", "0109"}
    assert after == {"0111", "0112", "0113", "0109"}


def test_funds_and_preferred_shares_stand_outside_the_sectors(tables: dict[str, pl.DataFrame]) -> None:
    last = tables["master"].filter(pl.col("Date") == tables["master"]["Date"].max())
    others = last.filter(pl.col("S33") == "9999")
    assert set(others["Mkt"]) == {"0109"}
    assert set(others["ProdCat"]) == {"011", "013", "014"}
    assert (others["Code"].str.slice(4) != "0").sum() == 1
    assert set(last["S33"]) == {*(sector.s33 for sector in SECTORS), "9999"}
    funds = tables["bars_daily"].filter(pl.col("Code") == "13060")
    assert funds["MktCap"].is_null().all()


def test_listings_of_2024_carry_letters_in_their_codes(
    tables: dict[str, pl.DataFrame], late: dict[str, pl.DataFrame]
) -> None:
    letters = pl.col("Code").str.contains("[A-Z]")
    assert tables["master"].filter(letters).height == 0
    new = late["master"].filter(letters)
    assert new.height > 0
    assert new["Date"].min() >= "2024-01-01"


def test_nothing_traded_on_the_day_of_the_outage(tmp_path: Path) -> None:
    size = MarketSize(stocks=12, start=date(2020, 8, 3), end=date(2020, 11, 30), plant="demo")
    tables = tables_of(size, tmp_path / "market")
    day = tables["bars_daily"].filter(pl.col("Date") == "2020-10-01")
    assert day.height == tables["master"].filter(pl.col("Date") == "2020-10-01").height > 0
    assert day.select(pl.col(PRICES).is_null().all()).row(0) == (True,) * len(PRICES)
    assert tables["calendar"].filter(pl.col("Date") == "2020-10-01")["HolDiv"].item() == "1"
    index = tables["topix"].filter(pl.col("Date").is_between(pl.lit("2020-09-30"), pl.lit("2020-10-01")))
    assert index.row(1)[1:] == (index["C"][0],) * 4
    oracle = pl.read_parquet(tmp_path / "market" / "oracle" / "oracle.parquet")
    assert oracle.filter(pl.col("date") == date(2020, 10, 1))["d0_h1"].is_null().all()


def test_topix_is_index_0000_and_every_index_is_there(tables: dict[str, pl.DataFrame]) -> None:
    indices = tables["indices"]
    assert tables["topix"].equals(indices.filter(pl.col("Code") == "0000").drop("Code"))
    assert [sector_code(0), sector_code(9), sector_code(10), sector_code(32)] == ["0040", "0049", "004A", "0060"]
    wanted = {"0000", "0028", "002D", "0070", "0075", "8100", "8200", "0500", "0501", "0502"}
    wanted |= {"0029", "002A", "002B", "002C", "002E", "002F", "0091", "812C", "812D", "822C", "822D"}
    wanted |= {"8501", "8502", "8503"} | {f"{0x80 + n:04X}" for n in range(17)}
    assert set(indices["Code"]) == wanted | {sector_code(s) for s in range(33)}
    assert indices.filter(pl.col("Code") == "0091")["Date"].max() == "2022-04-01"
    close_only = indices.filter(pl.col("Code").is_in(["8501", "8502", "8503"]))
    assert close_only["C"].null_count() == 0 and close_only["O"].null_count() == close_only.height
    assert indices.filter(pl.col("Code") == "0500")["Date"].min() == "2022-06-27"
    assert indices.select(
        (pl.col("H") >= pl.max_horizontal("O", "C")).all() & (pl.col("L") <= pl.min_horizontal("O", "C")).all()
    ).item()


def test_investor_flows_add_up_in_every_row(tables: dict[str, pl.DataFrame]) -> None:
    flows = tables["investor_types"]
    types = ["Ind", "Frgn", "SecCo", "InvTr", "BusCo", "OthCo", "InsCo", "Bank", "TrstBnk", "OthFin"]
    for name in ["Prop", "Brk", "Tot", *types]:
        assert (flows[f"{name}Tot"] == flows[f"{name}Sell"] + flows[f"{name}Buy"]).all()
        assert (flows[f"{name}Bal"] == flows[f"{name}Buy"] - flows[f"{name}Sell"]).all()
    for side in ("Sell", "Buy"):
        assert (flows[f"Tot{side}"] == flows[f"Prop{side}"] + flows[f"Brk{side}"]).all()
        assert (
            flows.select(pl.sum_horizontal(f"{name}{side}" for name in types)).to_series() == flows[f"Brk{side}"]
        ).all()
    assert (flows.select(pl.col("^.*(Sell|Buy)$") > 0).min_horizontal()).all()


def test_investor_flows_come_out_on_the_fourth_business_day_after_their_week(tables: dict[str, pl.DataFrame]) -> None:
    flows = tables["investor_types"]
    days = [day.isoformat() for day in business_days(SIZE.start, date(2022, 9, 30))]
    for published, ended in flows.select("PubDate", "EnDate").unique().iter_rows():
        assert days.index(published) - days.index(ended) == 4
    early = flows.filter(pl.col("EnDate") < "2022-04-04")["Section"].unique().to_list()
    later = flows.filter(pl.col("StDate") >= "2022-04-04")["Section"].unique().to_list()
    assert sorted(early) == ["TSE1st", "TSE2nd", "TSEJASDAQ", "TSEMothers", "TokyoNagoya"]
    assert sorted(later) == ["TSEGrowth", "TSEPrime", "TSEStandard", "TokyoNagoya"]


def test_corrected_investor_flows_are_further_rows(late: dict[str, pl.DataFrame]) -> None:
    flows = late["investor_types"]
    twice = flows.filter(pl.len().over("Section", "StDate") > 1).sort("Section", "StDate", "PubDate")
    assert twice.height > 0
    first, second = twice.gather_every(2), twice.gather_every(2, offset=1)
    assert (first["PubDate"] < second["PubDate"]).all()
    assert (first["PropSell"] != second["PropSell"]).all()
