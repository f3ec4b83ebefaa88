"""The search on one self-contained page, in the style of the evaluation report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from atft_pipeline.evaluation.page import STYLE, grid, number, percent, section, table, tiles
from atft_pipeline.search.pictures import HISTORY, IMPORTANCE, PARALLEL, SLICES
from atft_pipeline.search.space import SPACE

SHOWN = 30
"""Trials in the table; results.json has all."""

_OBJECTIVE = (
    "The objective is the mean validation RankIC over the folds (horizon-weighted, best epoch of each fold) minus half "
    "its standard error over them. It is the best of several epochs and of many trials, so it is too high; the test "
    "part is not touched here."
)
_DEFLATED = (
    "Daily net Sharpe of the best trial's decile book on the validation dates, against the best that as many trials "
    "without skill would show (Bailey and Lopez de Prado 2014). Pruned and failed trials count as tried; the spread is "
    "that of the complete ones. Below 95 % the best trial is not told from luck."
)
_COURSE = (
    "Pruned trials stand at what they last showed. Importance asks what tells the best tenth of the complete trials "
    "from the others: with a few dozen trials that is a trial or two, so believe the slices first."
)
_TRIALS = "Best first: complete trials by value, then pruned ones, then failed ones, which have no value."


def render(results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The whole page as text."""
    sections = {
        "Result": (tiles(_cards(results)), _OBJECTIVE),
        "Course": (grid(pictures, (HISTORY, IMPORTANCE)), _COURSE),
        "Parameters": (grid(pictures, (SLICES, PARALLEL)) + _best_table(results), "The best trial is ringed."),
        "Deflated Sharpe": (_deflated_table(results), _DEFLATED),
        "Trials": (_trial_table(results), _TRIALS),
        "Origin": (_origin_table(results), "A study of other inputs has another name and its own trials."),
    }
    links = "".join(f"<a href='#{n.lower().replace(' ', '-')}'>{n}</a>" for n, (body, _) in sections.items() if body)
    body = "".join(section(name, *content) for name, content in sections.items() if content[0])
    head = f"Hyperparameter search {results['study']}"
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(results["counts"].items()))
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(head)}</title><style>{STYLE}</style>"
        f"</head><body><header><div class=in><h1>{escape(head)}</h1><p>{escape(counts)}; preset "
        f"{escape(results['preset'])}, delay {results['delay']}</p></div></header><nav><div>{links}</div></nav>"
        f"<main>{body}</main></body></html>"
    )


def _cards(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    best, deflated, counts = results["best"], results["deflated"], results["counts"]
    cards = [("trials", str(sum(counts.values())), ", ".join(f"{n} {k}" for k, n in sorted(counts.items())))]
    if best is None:
        return [*cards, ("best objective", "–", "no trial is complete")]
    by_fold = ", ".join(number(value, 4, sign=True) for value in best["rank_ics"])
    annual = results["annual"] ** 0.5
    return [
        *cards,
        ("best objective", number(best["value"], 4, sign=True), f"trial {best['trial']}; RankIC by fold {by_fold}"),
        ("gain on trial 0", number(_gain(results), 4, sign=True), "trial 0 starts from the preset"),
        ("deflated Sharpe", percent(deflated["probability"]), f"luck of {deflated['trials']} trials taken off"),
        ("net Sharpe, annual", number(_times(deflated["sharpe"], annual), 2, sign=True),
         f"by luck {number(_times(deflated['luck'], annual), 2)}"),
    ]  # fmt: skip


def _gain(results: Mapping[str, Any]) -> float | None:
    start = next((row["value"] for row in results["trials"] if row["trial"] == 0), None)
    return None if start is None else results["best"]["value"] - start


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _best_table(results: Mapping[str, Any]) -> str:
    if results["best"] is None:
        return ""
    shares = results["importance"]
    rows = [
        [p.name, f"{results['best']['params'][p.name]:.4g}", f"{p.start:g}", " to ".join(f"{b:g}" for b in p.bounds),
         percent(shares.get(p.name)), f'<td class="text">{escape(p.what)}</td>']
        for p in SPACE
    ]  # fmt: skip
    return table(["parameter", "best", "trial 0", "searched", "importance", "meaning"], rows)


def _deflated_table(results: Mapping[str, Any]) -> str:
    found = results["deflated"]
    if found is None:
        return ""
    rows = [
        ["Sharpe per day, net", number(found["sharpe"], 4, sign=True)],
        ["expected best of that many trials without skill", number(found["luck"], 4, sign=True)],
        ["trials tried", str(found["trials"])],
        ["days", str(found["periods"])],
        ["skew, kurtosis", f"{number(found['skew'], 2)}, {number(found['kurtosis'], 2)}"],
        ["probability that the true ratio exceeds luck", percent(found["probability"])],
    ]
    return table(["", "value"], rows)


def _trial_table(results: Mapping[str, Any]) -> str:
    annual = results["annual"] ** 0.5
    rows = []
    for row in results["trials"][:SHOWN]:
        value = row["value"] if row["outcome"] == "complete" else None
        last = row["phases"][-1] if row["phases"] else None
        values = [f"{row['params'][p.name]:.3g}" if p.name in row["params"] else "–" for p in SPACE]
        rows.append(
            [str(row["trial"]), _outcome(row["outcome"]), number(value, 4, sign=True), number(last, 4, sign=True),
             " ".join(number(v, 3, sign=True) for v in row["rank_ics"]) or "–",
             number(_times(row["sharpe"], annual), 2, sign=True), *values,
             f'<td class="text">{escape(row["reason"][:160])}</td>']
        )  # fmt: skip
    head = ["trial", "outcome", "objective", "last shown", "RankIC by fold", "Sharpe", *(p.name for p in SPACE)]
    return table([*head, "reason"], rows)


def _outcome(kind: str) -> str:
    style = {"complete": "pass", "failed": "fail"}.get(kind, "soft")
    return f'<span class="{style}">{escape(kind)}</span>'


def _origin_table(results: Mapping[str, Any]) -> str:
    rows = [
        ["panel", results["panel_hash"]],
        ["seed of the search", str(results["seed"])],
        ["attempts, with those begun again after a kill", str(results["attempts"])],
    ]
    for k, fold in enumerate(results["folds"]):
        dates = " to ".join(fold["valid"]) or "–"
        rows.append(
            [f"fold {k}", f"{fold['train_days']} training dates, {fold['valid_days']} validation dates {dates}"]
        )
    return table(["", "value"], rows)
