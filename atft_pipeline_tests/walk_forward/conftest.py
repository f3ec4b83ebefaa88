"""One walk-forward that nothing disturbed, for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from atft_pipeline.walk_forward.results import write_results
from atft_pipeline.walk_forward.spec import WalkSpec
from atft_pipeline_tests.walk_forward.tiny_walk import tiny_lake, tiny_spec, walk_fold


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> WalkSpec:
    """Three folds, one seed. Its lake is <data_dir>/simulated."""
    data_dir = tmp_path_factory.mktemp("walk")
    tiny_lake(data_dir)
    spec = tiny_spec(data_dir)
    for k in range(len(spec.folds)):
        walk_fold(spec, k)
    write_results(spec)
    return spec


@pytest.fixture
def data_dir(walked: WalkSpec) -> Path:
    return Path(walked.lake).parent
