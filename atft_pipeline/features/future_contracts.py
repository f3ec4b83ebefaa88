"""Futures contracts by product: the central one of each date with its own past, the next one, and sums over months."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from atft_pipeline.features.tables import require_columns
from atft_pipeline.panel.operators import Array, divide
from atft_pipeline.verdict import ContractBroken

FIELDS = (
    "Date", "Code", "ProdCat", "CM", "EmMrgnTrgDiv", "CCMFlag", "LTD", "Settle", "EC", "AO", "AC", "H", "L", "OI", "Vo",
)  # fmt: skip
NORMAL, CENTRAL = "002", "1"

_PRICES = ("Settle", "EC", "AO", "AC", "H", "L")


@dataclass(frozen=True)
class Central:
    """One product's central contract on each of the product's dates, ascending; null where a price is 0 or absent."""

    dates: pl.Series
    settle: Array
    previous: Array
    """Settlement of the same contract on the date before."""
    night_close: Array
    day_open: Array
    day_close: Array
    high: Array
    low: Array
    last_trading: NDArray[np.datetime64]
    next_settle: Array
    """Settlement of the following contract month."""
    next_gap: Array
    """Calendar days between the last trading days of the two."""
    interest: Array
    """Open interest of all contract months."""
    volume: Array

    @property
    def ret(self) -> Array:
        """Return of the contract since the date before."""
        return divide(self.settle, self.previous) - 1


def regular(futures: pl.DataFrame) -> pl.DataFrame:
    """The rows of the regular settlement, prices of 0 (no trade) made null. Raises ContractBroken without a column."""
    require_columns("futures", futures, FIELDS)
    rows = futures.filter(pl.col("EmMrgnTrgDiv") == NORMAL).select(FIELDS)
    return rows.with_columns(pl.when(pl.col(name) > 0).then(pl.col(name)).alias(name) for name in _PRICES)


def central_contracts(contracts: pl.DataFrame, product: str) -> Central:
    """The central contracts of a product. Raises ContractBroken when it has no rows, or a date two central ones."""
    own = _of_product(contracts, product).sort("Date", "CM")
    dates = own.select("Date").unique().sort("Date").with_row_index("place")
    own = own.join(dates, on="Date").with_columns(pl.col("place").cast(pl.Int64))
    chosen = own.filter(pl.col("CCMFlag") == CENTRAL)
    if chosen["Date"].n_unique() != chosen.height:
        raise ContractBroken(f"futures: {product} has two central contracts on one date; ingest it again")
    before = own.select("Code", place=pl.col("place") + 1, previous="Settle")
    following = own.select("place", "CM", "LTD", "Settle", earlier=pl.col("CM").shift(1).over("place"))
    following = following.select("place", CM="earlier", next_settle="Settle", next_last="LTD")
    sums = own.group_by("place").agg(interest=pl.col("OI").sum(), volume=pl.col("Vo").sum())
    frame = (
        dates.select(pl.col("place").cast(pl.Int64), "Date")
        .join(chosen.drop("Date"), on="place", how="left")
        .join(before, on=["Code", "place"], how="left")
        .join(following, on=["place", "CM"], how="left")
        .join(sums, on="place", how="left")
        .sort("place")
    )
    gap = frame.select((pl.col("next_last") - pl.col("LTD")).dt.total_days()).to_series()
    number = {name: frame[name].cast(pl.Float64).to_numpy() for name in (*_PRICES, "previous", "next_settle")}
    return Central(
        dates=frame["Date"],
        settle=number["Settle"],
        previous=number["previous"],
        night_close=number["EC"],
        day_open=number["AO"],
        day_close=number["AC"],
        high=number["H"],
        low=number["L"],
        last_trading=frame["LTD"].to_numpy().astype("datetime64[D]"),
        next_settle=number["next_settle"],
        next_gap=gap.cast(pl.Float64).to_numpy(),
        interest=frame["interest"].cast(pl.Float64).to_numpy(),
        volume=frame["volume"].cast(pl.Float64).to_numpy(),
    )


def _of_product(contracts: pl.DataFrame, product: str) -> pl.DataFrame:
    own = contracts.filter(pl.col("ProdCat") == product)
    if own.is_empty():
        raise ContractBroken(f"futures has no rows of {product}; ingest it again, or check the API's product codes")
    return own


def nearest_settlement(contracts: pl.DataFrame, product: str) -> tuple[pl.Series, Array]:
    """Date and settlement of the product's contract that ends first, on each of its dates."""
    own = _of_product(contracts, product).filter(pl.col("LTD") >= pl.col("Date"))
    front = own.sort("Date", "LTD").group_by("Date", maintain_order=True).agg(pl.col("Settle").first())
    return front["Date"], front["Settle"].cast(pl.Float64).to_numpy()
