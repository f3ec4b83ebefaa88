"""What a run differs in from the champion and from its siblings: settings, code, data and results, for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atft_pipeline.evaluation.champion import champion_run
from atft_pipeline.evaluation.comparison import compare, told_of
from atft_pipeline.lake.store import LakeError, read_json
from atft_pipeline.verdict import ContractBroken

HASHES = ("panel_hash", "dataset_hash", "stats_hash", "config_hash", "source_hash")


@dataclass(frozen=True)
class Changes:
    """The run against the champion of now. `rows` are (what, champion, this run) where they differ."""

    champion: str
    told: str
    rows: tuple[tuple[str, str, str], ...]


def changes_since_champion(lake: Path, card: Mapping[str, Any]) -> Changes | None:
    """None while there is no champion, or when the run is the champion."""
    champion, run_id = champion_run(lake), str(card["run_id"])
    if champion is None or champion == run_id:
        return None
    try:
        old, told = read_json(_card_path(lake, champion)), told_of(compare(lake, champion, run_id))
    except (LakeError, ContractBroken) as error:
        return Changes(champion, f"cannot be compared: {error}", ())
    before, now = _facts(lake, old), _facts(lake, card)
    rows = [(name, before.get(name, "–"), now.get(name, "–")) for name in sorted(before.keys() | now.keys())]
    return Changes(champion, told, tuple(row for row in rows if row[1] != row[2]))


def sibling_cards(lake: Path, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scorecards of all runs on the same panel, this one included: seeds and settings side by side."""
    found = [read_json(path) for path in sorted((lake / "evaluation").glob("*/scorecard.json"))]
    return [own for own in found if own.get("panel_hash") == card["panel_hash"]]


def _card_path(lake: Path, run_id: str) -> Path:
    return lake / "evaluation" / run_id / "scorecard.json"


def _facts(lake: Path, card: Mapping[str, Any]) -> dict[str, str]:
    """Settings, hashes and size of a run as text by name."""
    provenance = {"panel_hash": card["panel_hash"], **card.get("provenance", {})}
    facts = {name: str(provenance[name])[:16] for name in HASHES if provenance.get(name)}
    facts |= {name: str(card[name]) for name in ("n_features",) if name in card}
    facts |= {f"dates of {part}": str(span) for part, span in card["split"].items()}
    path = lake / "runs" / str(card["run_id"]) / "config.json"
    config = read_json(path).get("config", "{}") if path.exists() else "{}"
    settings = json.loads(config) if isinstance(config, str) else config
    return facts | {f"setting {name}": str(value) for name, value in settings.items()}
