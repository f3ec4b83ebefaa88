"""The run's documents have the declared shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from atft_pipeline.evaluation.drawing import MAX_BYTES
from atft_pipeline.evaluation.plots_training import gates_and_gradients, utilisation
from atft_pipeline.training import monitor
from atft_pipeline_tests.training.conftest import Lines

SCHEMA = json.loads((Path(monitor.__file__).parent / "metrics_summary.schema.json").read_text())


@pytest.mark.parametrize("name", ["metrics_summary.json", "latest_metrics.json"])
def test_the_documents_follow_the_schema(finished: tuple[Path, Lines], name: str) -> None:
    jsonschema.validate(json.loads((finished[0] / name).read_text()), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run_id",), "yesterday's"),
        (("val", "per_horizon", "5", "rankic_se"), ...),
        (("split", "valid"), ["2024-01-01"]),
        (("lr", "heads"), "fast"),
        (("RankIC",), ...),
        (("mode",), "auto"),
    ],
)
def test_a_document_of_another_shape_is_refused(
    finished: tuple[Path, Lines], path: tuple[str, ...], value: Any
) -> None:
    document = json.loads((finished[0] / "metrics_summary.json").read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_pictures_of_a_long_training_fit_into_metadata(finished: tuple[Path, Lines], tmp_path: Path) -> None:
    """Six times as many epochs as the tiny run, some blocks frozen in some of them, no GPU."""
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()
    assert {"selection", "graph"} <= {b for line in lines for b in json.loads(line)["model"]["grad_norm"]}
    (tmp_path / "metrics.jsonl").write_text("\n".join(line for line in lines for _ in range(6)))
    for draw in (gates_and_gradients, utilisation):
        picture = draw(tmp_path)
        assert picture.startswith(b"\x89PNG") and len(picture) < MAX_BYTES
