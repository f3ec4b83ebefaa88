"""A walk-forward on one self-contained page, in the style of the evaluation report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from atft_pipeline.evaluation.page import STYLE, grid, interval, number, pm, section, state, table, tiles
from atft_pipeline.evaluation.rivals import CONSTANT
from atft_pipeline.verdict import Verdict
from atft_pipeline.walk_forward.pictures import CUMULATIVE, DIFFERENCES, FOLDS, HORIZONS

PLACES = (("delay_1", "1"), ("delay_1", "5"), ("delay_1", "mean"), ("delay_0", "1"))
HEADS = ("1 day, delay 1", "5 days, delay 1", "mean over horizons, delay 1", "1 day, delay 0")
_JUDGED = {("delay_1", "1"): "1 day, delay 1", ("delay_1", "mean"): "mean over horizons, delay 1"}

_RANK_IC = (
    "Mean daily Spearman correlation of score and return ± standard error (Newey-West, lag horizon - 1) over the test "
    "dates of all folds; every score on the same stocks and dates, fitted on the same training dates. A constant ranks "
    "nothing: its correlation is undefined. With several seeds, the mean over single runs, no average of their scores."
)
_DIFFERENCE = (
    "Mean of the daily differences of RankIC ± standard error, with a 95 % block-bootstrap interval. The model is "
    "above a rival when this clears zero by two errors; two separate means say nothing."
)
_FOLDS = (
    "Each fold trains on all dates before its validation, chooses by its validation and is read on its test once. A "
    "single fold has few dates: its error is about sqrt(folds) times that of the whole."
)
_SEEDS = "RankIC of single seeds, delay 1. Their spread is an error of one run that the errors above do not contain."
_FEW_SEEDS = " Fewer than three seeds were trained: make no claim of this."
_CHECKS = "Judged from the stored files of the folds."


def render(results: Mapping[str, Any], verdicts: Mapping[str, Verdict], pictures: Mapping[str, bytes]) -> str:
    """The whole page as text."""
    sections = {
        "Checks": (_verdict_table(verdicts), _CHECKS),
        "RankIC": (_rank_ic_table(results) + grid(pictures, (CUMULATIVE, HORIZONS)), _RANK_IC),
        "Against the rivals": (_difference_table(results) + grid(pictures, (DIFFERENCES, FOLDS)), _DIFFERENCE),
        "Folds": (_fold_table(results) + _fold_difference_table(results), _FOLDS),
        "Oracle": _oracle(results),
        "Seeds": (_seed_table(results), _SEEDS + ("" if len(results["seeds"]) > 2 else _FEW_SEEDS)),
        "Origin": (_origin_table(results), "Statistics, settings and runs of a fold lie in walk_forward/folds/<id>."),
    }  # fmt: skip
    links = "".join(
        f"<a href='#{name.lower().replace(' ', '-')}'>{escape(name)}</a>"
        for name, (body, _) in sections.items()
        if body
    )
    body = "".join(section(name, *content) for name, content in sections.items() if content[0])
    head = f"Walk-forward {results['walk']}"
    first, last = results["folds"][0]["split"]["test"][0], results["folds"][-1]["split"]["test"][1]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(head)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<header><div class=in><h1>{escape(head)}</h1><p>{escape(results['market'])} · preset "
        f"{escape(results['preset'])} · {len(results['folds'])} folds · test dates {first} to {last} · checks "
        f"{state(all(v.passed for v in verdicts.values()))}</p></div></header><nav><div>{links}</div></nav>"
        f"<main>{_summary(results)}{body}</main></body></html>\n"
    )


def _summary(results: Mapping[str, Any]) -> str:
    note = ""
    if results["simulated"]:
        note = '<div class="note"><b>This is a simulated market.</b> Its signal was planted.</div>'
    own = results["models"]["model"]["delay_1"]
    cards = [("model, 1-day RankIC", pm(own["1"]["rank_ic"]["all"]), f"{own['1']['rank_ic']['all']['n_dates']} dates")]
    cards.append(("model, mean over horizons", pm(own["mean"]["rank_ic"]["all"]), "delay 1"))
    for rival in ("ridge", "lightgbm"):
        gap = results["differences"][rival]["delay_1"]["1"]["all"]
        told = f"t {number(gap['t'], 1)}, 95 % {interval(gap['ci95'], 4)}"
        cards.append((f"model − {rival}, 1 day, delay 1", pm(gap), told))
    return note + tiles(cards)


def _verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    rows = [
        [name, state(v.passed), number(v.got, 4), number(v.want, 4), f'<td class="text">{escape(v.message)}</td>']
        for name, v in verdicts.items()
    ]
    return table(["check", "", "got", "want", "in words"], rows)


def _rank_ic_table(results: Mapping[str, Any]) -> str:
    rows = [
        [name, *(pm(card[delay][horizon]["rank_ic"]["all"]) for delay, horizon in PLACES),
         _dates(card["delay_1"]["1"]["rank_ic"]["all"])]
        for name, card in results["models"].items()
    ]  # fmt: skip
    return table(["", *HEADS, "dates"], rows)


def _dates(found: Mapping[str, Any]) -> str:
    missing = found["n_dates_nan"]
    return f"{found['n_dates']}" + (f" ({missing} undefined)" if missing else "")


def _difference_table(results: Mapping[str, Any]) -> str:
    rows = []
    for rival, card in results["differences"].items():
        row = [f"model − {rival}"]
        for delay, horizon in _JUDGED:
            found = card[delay][horizon]["all"]
            row += [pm(found), interval(found["ci95"], 4)]
        rows.append(row)
    return table(["", *(text for head in _JUDGED.values() for text in (head, "95 %"))], rows)


def _by_fold(results: Mapping[str, Any], cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = []
    for k, fold in enumerate(results["folds"]):
        test = " to ".join(fold["split"]["test"])
        rows.append([f"{k + 1}: {test}", str(fold["train_days"]), *(pm(own[k]) for own in cells.values())])
    return table(["1 day, delay 1", "training dates", *cells], rows)


def _fold_table(results: Mapping[str, Any]) -> str:
    cards = {name: card for name, card in results["models"].items() if name != CONSTANT}
    return _by_fold(results, {name: card["delay_1"]["1"]["rank_ic"]["folds"] for name, card in cards.items()})


def _fold_difference_table(results: Mapping[str, Any]) -> str:
    gaps = {f"model − {n}": card["delay_1"]["1"]["folds"] for n, card in results["differences"].items()}
    return _by_fold(results, gaps)


def _oracle(results: Mapping[str, Any]) -> tuple[str, str]:
    cards = {name: card for name, card in results["models"].items() if "oracle_correlation" in card["delay_1"]["1"]}
    rows = [
        [name, *(pm(card[delay][horizon]["oracle_correlation"]["all"]) for delay, horizon in PLACES)]
        for name, card in cards.items()
    ]
    note = "Correlation with the expected return that generated the prices: without return noise, 1 would be perfect."
    return (table(["", *HEADS], rows) if rows else ""), note


def _seed_table(results: Mapping[str, Any]) -> str:
    cards = results["seeds"]
    rows = [[seed, pm(card["1"]["all"]), pm(card["mean"]["all"])] for seed, card in cards.items()]
    if len(cards) > 1:
        spreads = [statistics.stdev(card[place]["all"]["mean"] for card in cards.values()) for place in ("1", "mean")]
        rows.append(["spread (standard deviation)", *(number(spread, 4) for spread in spreads)])
    return table(["seed", "1 day", "mean over horizons"], rows)


_HASHES = {"dataset": "dataset_hash", "settings": "recipe", "code": "source_hash"}


def _origin_table(results: Mapping[str, Any]) -> str:
    rows = [[name, results[key][:16]] for name, key in _HASHES.items()]
    rows.append(["cut by", ", ".join(f"{name} {value}" for name, value in results["settings"].items())])
    for k, fold in enumerate(results["folds"]):
        runs = ", ".join(
            f"{seed}: {run['run_id']} (phase {run['phase']}, validation {number(run['RankIC'], 4, sign=True)})"
            for seed, run in fold["seeds"].items()
        )
        spans = ", ".join(f"{part} {' to '.join(fold['split'][part])}" for part in ("train", "valid", "test"))
        told = (
            f"{fold['id']}; {spans}; statistics {fold['stats_hash'][:12]} over {fold['stats_rows']:,} rows; ridge "
            f"penalty {fold['rivals']['ridge']['penalty']:g}, {fold['rivals']['lightgbm']['trees']} trees; runs {runs}"
        )
        rows.append([f"fold {k + 1}", told])
    return table(["", "value"], [[name, f'<td class="text">{escape(str(value))}</td>'] for name, value in rows])
