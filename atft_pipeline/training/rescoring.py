"""`python -m atft_pipeline.training.rescoring --panel DIR --run DIR --out DIR --span FIRST:END [--uncertainty]`: a
finished run's weights on a panel that was built after it, normalised with the run's own statistics.

Nothing is fitted here. The panel has the format of a training panel without labels (delays []); who writes it answers
for its statistics. A date that the run's own panel held gets the very score that training stored, if its rows are the
same. Exit codes: 0 done, 2 the panel does not fit the run, 1 any other failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, ModelConfig
from atft_pipeline.parent import die_with_parent
from atft_pipeline.training import checkpoint
from atft_pipeline.training.batches import BlockSource
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.faults import Busy, PanelError, TrainingFault
from atft_pipeline.training.files import write_array
from atft_pipeline.training.graph import GraphRules, GraphStore
from atft_pipeline.training.memory import MemoryLadder, is_out_of_memory
from atft_pipeline.training.panel_data import PanelData, load_panel
from atft_pipeline.training.runs import exclusive
from atft_pipeline.training.scoring import score_dates
from atft_pipeline.training.uncertainty import mc_dropout

SCORES, QUANTILES, UNCERTAINTY = "scores.npy", "quantiles.npy", "uncertainty.npy"


@dataclass(frozen=True)
class Rescored:
    """T dates and N stocks of the panel that was scored; NaN outside the spans and where a window is missing."""

    scores: NDArray[np.float32]
    """[T, N, H]"""
    quantiles: NDArray[np.float32]
    """[T, N, H, Q]"""
    uncertainty: NDArray[np.float32] | None
    """[2, 1, N, H] mean and standard deviation of Monte-Carlo dropout on the newest date; None when not asked for."""


class Scorer:
    """A finished run's model over a panel, with the precision and the threads of its training."""

    def __init__(self, panel: PanelData, run: Path, say: Callable[[str], None]) -> None:
        result = checkpoint.load(run / "ckpt" / "final.pt")
        if result["feature_hash"] != panel.feature_hash:
            raise PanelError(f"run {run.name} was trained on other features, or in another order, than {panel.folder}")
        self.config = config = TrainingConfig.from_json(result["config"])
        if tuple(result["model_config"]["horizons"]) != panel.horizons:
            raise PanelError(f"run {run.name} predicts {result['model_config']['horizons']}, not {panel.horizons}")
        if config.threads:
            torch.set_num_threads(config.threads)
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(wanted if config.device == "auto" else config.device)
        self.panel, self.say = panel, say
        self.model = _model(result, run).to(self.device)
        half = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda")
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)
        self.source = BlockSource(
            panel, GraphStore(panel, run.parent / "graphs", GraphRules(refresh=config.graph_refresh)),
            length=config.sequence_length, min_window_share=config.min_window_share,
            min_cross_section=config.min_cross_section, device=self.device,
        )  # fmt: skip
        self.ladder = MemoryLadder(self.model, config, len(panel.codes), self.device, run.parent / "memory.json")

    def score(self, spans: Sequence[range], *, uncertainty: bool) -> Rescored:
        """Scores of the dates of `spans`, which must lie a full window behind the panel's first date."""
        dates, shape = len(self.panel.dates), (len(self.panel.codes), len(self.panel.horizons))
        scores = np.full((dates, *shape), np.nan, np.float32)
        quantiles = np.full((dates, *shape, len(self.model.config.quantiles)), np.nan, np.float32)
        for span in spans:
            if span.start < self.config.sequence_length - 1 or span.stop > dates:
                raise PanelError(f"dates {span.start} to {span.stop} of {dates} have no window of full length")
            scores[span.start : span.stop], quantiles[span.start : span.stop] = self._score(span)
        drawn = None
        if uncertainty and self.config.mc_samples:
            with self.autocast:
                drawn = np.stack(
                    mc_dropout(
                        self.model, self.source, range(dates - 1, dates), samples=self.config.mc_samples,
                        seed=self.config.seed,
                    )
                )  # fmt: skip
        return Rescored(scores, quantiles, drawn)

    def _score(self, span: range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        while True:
            try:
                with self.autocast:
                    return score_dates(self.model, self.source, span, dates_per_block=self.ladder.footing.eval_dates)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                line = self.ladder.climb_down(error, {"stage": "scoring"})
            self.say(line)


def _model(result: dict[str, object], run: Path) -> ATFTGATFAN:
    """The stored weights in a model of this code. Raises `TrainingFault` when the code has other sizes or weights."""
    try:
        model = ATFTGATFAN(ModelConfig(**result["model_config"]))  # type: ignore[arg-type]
        model.load_state_dict(result["model"])  # type: ignore[arg-type]
    except (TypeError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise TrainingFault(
            f"the weights of run {run.name} are of another version of the model; train again ({text})"
        ) from error
    model.set_switches(adaptive_norm=bool(result["adaptive_norm"]), graph=bool(result["graph"]))
    return model


def rescore(
    panel_dir: Path, run: Path, spans: Sequence[range], *, uncertainty: bool = False,
    say: Callable[[str], None] = print,
) -> Rescored:  # fmt: skip
    """`Scorer.score` under the training lock: a device serves one at a time. Raises `PanelError`, `TrainingFault` when
    panel and run do not fit, `Busy` when a training holds the lock too long."""
    panel = load_panel(panel_dir)
    scorer = Scorer(panel, run, say)
    with exclusive(run.parent, scorer.config.lock_wait_seconds, say):
        return scorer.score(spans, uncertainty=uncertainty)


def span_of(text: str) -> range:
    """`FIRST:END`, half-open positions."""
    first, colon, end = text.partition(":")
    if not colon or not first.isdecimal() or not end.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: write positions as FIRST:END")
    return range(int(first), int(end))


def main(argv: Sequence[str] | None = None) -> int:
    """Score, write the arrays into --out, and turn the outcome into an exit code."""
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.training.rescoring", description=__doc__)
    parser.add_argument("--panel", type=Path, required=True, help="folder of a panel without labels")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="folder for the arrays")
    parser.add_argument("--span", type=span_of, action="append", required=True, metavar="FIRST:END")
    parser.add_argument("--uncertainty", action="store_true", help="Monte-Carlo dropout on the newest date")
    chosen = parser.parse_args(argv)
    try:
        found = rescore(chosen.panel, chosen.run, chosen.span, uncertainty=chosen.uncertainty)
    except (PanelError, TrainingFault, Busy) as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    write_array(chosen.out / SCORES, found.scores)
    write_array(chosen.out / QUANTILES, found.quantiles)
    if found.uncertainty is not None:
        write_array(chosen.out / UNCERTAINTY, found.uncertainty)
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
