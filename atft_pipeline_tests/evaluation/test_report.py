"""Pictures fit into metadata; the page stands alone and says what its numbers are."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from atft_pipeline.evaluation import plots
from atft_pipeline.evaluation.judge import judge_run
from atft_pipeline.evaluation.report import write_report
from atft_pipeline.evaluation.scorecard import evaluate_run
from atft_pipeline.settings import Thresholds
from atft_pipeline_tests.evaluation.fake_run import RUN, good_scores, store_oracle, store_run
from atft_pipeline_tests.small_lake import make_market, store_panel

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
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
    assert len(pictures) == 6
    assert all(png.startswith(PNG) and len(png) < plots.MAX_BYTES for png in pictures.values())
    return write_report(lake, card, judge_run(card, Thresholds()), pictures).read_text(encoding="utf-8")


def test_the_page_stands_alone_and_names_everything(lake: Path) -> None:
    text = page(lake, market_dir=lake / "market", market="simulated 40 stocks <seed 3>")
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.sources
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert "This is a simulated market" in text
    assert "&lt;seed 3&gt;" in text
    for words in ("delay 1 (tradable)", "delay 0 (research)", "standard error", "model − ridge", "Correlation with"):
        assert words in text
    assert "not passed: no predictions" in text  # a planted IC this high is too good


def test_a_real_market_is_not_called_simulated(lake: Path) -> None:
    text = page(lake, market="J-Quants, plan standard")
    assert "simulated market" not in text
    assert "A real market has no oracle" in text


def test_dataset_pictures_fit_into_metadata() -> None:
    dates = np.arange("2015-01-01", "2024-12-31", dtype="datetime64[D]")
    for png in (
        plots.null_share({f"g{i}": 1 - i / 40 for i in range(22)}),
        plots.rows_per_date(dates, list(np.random.default_rng(0).integers(3500, 4000, len(dates)))),
    ):
        assert png.startswith(PNG)
        assert len(png) < plots.MAX_BYTES
