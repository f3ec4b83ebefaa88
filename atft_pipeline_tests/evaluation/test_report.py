"""Pictures fit into metadata; the page stands alone and says what its numbers are."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.evaluation import metrics, plots
from atft_pipeline.evaluation.champion import champion_path
from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.evaluation.judge import judge_run
from atft_pipeline.evaluation.lineage import changes_since_champion, sibling_cards
from atft_pipeline.evaluation.report import render, write_report
from atft_pipeline.evaluation.scorecard import evaluate_run
from atft_pipeline.lake.store import read_json, read_table, write_json
from atft_pipeline.settings import Thresholds
from atft_pipeline_tests.evaluation.fake_run import RUN, good_scores, store_oracle, store_run
from atft_pipeline_tests.small_lake import make_market, store_panel

OTHER = "ffffffffffff"
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    market = make_market(dates=300)
    manifest = store_panel(root, market)
    store_run(root, str(manifest["hash"]), good_scores(market))
    store_oracle(root / "market", market)
    return root


def page(lake: Path, **options: object) -> str:
    card = evaluate_run(lake, RUN, **options)  # type: ignore[arg-type]
    pictures = plots.evaluation_plots(lake, card, lake / "runs" / RUN)
    assert set(plots.PREVIEWS) <= set(pictures)
    assert len(pictures) == 14
    assert all(png.startswith(PNG) and len(png) < MAX_BYTES for png in pictures.values())
    return write_report(lake, card, judge_run(card, Thresholds()), pictures).read_text(encoding="utf-8")


def test_the_page_stands_alone_and_names_everything(lake: Path) -> None:
    text = page(lake, market_dir=lake / "market", market="simulated 40 stocks <seed 3>")
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in parsed.sources)
    assert {source[1:] for source in parsed.sources if source.startswith("#")} == parsed.ids  # every section, once
    assert "This is a simulated market" in text
    assert "&lt;seed 3&gt;" in text
    for words in (
        "delay 1 (tradable)",
        "delay 0 (research)",
        "standard error",
        "model − ridge",
        "model − momentum",
        "Correlation with the oracle",
        "Sharpe at 20 bp",
        "under water",
    ):
        assert words in text
    assert "not passed: no predictions" in text  # a planted IC this high is too good


def test_a_real_market_is_not_called_simulated(lake: Path) -> None:
    card = evaluate_run(lake, RUN, market="J-Quants, plan standard")
    text = render(card, judge_run(card, Thresholds()), {})
    assert "simulated market" not in text
    assert "A real market has no oracle" in text


def test_the_page_says_what_changed_since_the_champion(lake: Path) -> None:
    summary = read_json(lake / "runs" / RUN / "metrics_summary.json")
    store_run(lake, summary["panel_hash"], good_scores(make_market(dates=300), 2.0), run_id=OTHER, recipe="r2")
    for run_id, dropout in ((RUN, 0.1), (OTHER, 0.3)):
        write_json(lake / "runs" / run_id / "config.json", {"config": {"dropout": dropout, "hidden": 8}})
    first, second = evaluate_run(lake, RUN), evaluate_run(lake, OTHER)
    assert changes_since_champion(lake, second) is None  # nobody was promoted yet
    write_json(champion_path(lake), {"run_id": RUN, "history": [{"run_id": RUN}]})
    assert changes_since_champion(lake, first) is None
    changes = changes_since_champion(lake, second)
    assert changes is not None
    assert changes.champion == RUN
    assert set(changes.rows) == {("config_hash", "r1", "r2"), ("setting dropout", "0.1", "0.3")}
    assert f"{OTHER} minus {RUN}: daily RankIC -" in changes.told
    text = render(second, {}, {}, changes, sibling_cards(lake, second))
    assert f"champion {RUN}" in text
    assert f"{OTHER} (this run)" in text
    assert "Walk-forward" not in text and "5 folds say" in render(second, {}, {}, walk_forward="5 folds say")


def test_a_signal_of_two_days_later_is_gone_at_delay_two(lake: Path) -> None:
    found = evaluate_run(lake, RUN)["detail"]["test"]
    by_delay = {delay: cells["1"] for delay, cells in found["delays"].items()}
    assert by_delay["1"]["mean"] > 5 * by_delay["1"]["se"]
    assert all(abs(by_delay[delay]["mean"]) < 3 * by_delay[delay]["se"] for delay in ("0", "2", "5"))
    assert by_delay["5"]["n_dates"] == by_delay["1"]["n_dates"] - 4
    assert found["neutral"]["neutral to all"]["mean"] > 0.05
    assert set(found["slices"]) == {"year", "liquidity", "sector"}  # these inputs have no size and no volatility
    books = read_table(lake / "evaluation" / RUN / "books.parquet").filter(part="test")
    returns = found["books"]["returns"]
    assert returns["dollar-neutral, gross"]["sharpe"] == pytest.approx(found["books"]["sharpe_at_cost"][0])
    assert returns["dollar-neutral, net"]["sharpe"] == pytest.approx(found["books"]["sharpe_at_cost"][2])
    assert returns["long only, net"]["sharpe"] == pytest.approx(metrics.sharpe(books["long_net"].to_numpy()))


def test_dataset_pictures_fit_into_metadata() -> None:
    dates = np.arange("2015-01-01", "2024-12-31", dtype="datetime64[D]")
    for png in (
        plots.null_share({f"g{i}": 1 - i / 40 for i in range(22)}),
        plots.rows_per_date(dates, list(np.random.default_rng(0).integers(3500, 4000, len(dates)))),
    ):
        assert png.startswith(PNG)
        assert len(png) < MAX_BYTES
