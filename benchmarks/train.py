"""A training step of the demo and small presets, with encode-once blocks and, as the peer, one window at a time.

    python benchmarks/train.py [stocks]

The peer is the same model fed blocks of a single date: every window then encodes its own rows. Prints JSON lines.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time

import torch

from atft_pipeline.model.atft_gat_fan import ATFTGATFAN, Block, ModelConfig
from atft_pipeline.training.config import TrainingConfig

FEATURES, SPECTRAL = 191, 16
STEPS = 3


def random_block(config: ModelConfig, stocks: int, dates: int) -> Block:
    rows = config.sequence_length + dates - 1
    pairs = torch.cartesian_prod(torch.arange(dates), torch.arange(stocks))
    return Block(
        x=torch.randn(rows, stocks, config.n_features),
        observed=torch.ones(rows, stocks, dtype=torch.bool),
        pairs=pairs,
        sector=torch.ones(len(pairs), dtype=torch.long),
    )


def seconds_per_date(model: ATFTGATFAN, stocks: int, dates: int) -> float:
    """Forward and backward, best of a few steps after one that is not counted."""
    block = random_block(model.config, stocks, dates)
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        model(block).score.square().mean().backward()
        times.append(time.perf_counter() - began)
    return min(times[1:]) / dates


def main(stocks: int = 200) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for preset in ("demo", "small"):
        c = TrainingConfig.resolve(preset, env={})
        model = ATFTGATFAN(
            ModelConfig(
                n_features=FEATURES, spectral=tuple(range(SPECTRAL)), return_channel=0, hidden=c.hidden,
                value_width=c.value_width, sequence_length=c.sequence_length, attention_heads=c.attention_heads,
                row_chunk=c.row_chunk,
            )
        )  # fmt: skip
        for adaptive in (False, True):
            model.set_switches(adaptive_norm=adaptive, graph=False)
            block, single = (seconds_per_date(model, stocks, dates) for dates in (c.dates_per_step, 1))
            figures = {
                "benchmark": "train_step",
                "preset": preset,
                "stocks": stocks,
                "window": c.sequence_length,
                "adaptive_norm": adaptive,
                "windows_per_s": round(stocks / block),
                "one_date_at_a_time_windows_per_s": round(stocks / single),
                "ratio": round(single / block, 2),
                "machine": f"{platform.machine()}, 1 thread of {os.cpu_count()}",
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
