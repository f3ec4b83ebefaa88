"""A walk-forward killed by SIGKILL in its third fold, as real processes, and gone on with by the Dagster job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from atft_pipeline.definitions import defs
from atft_pipeline.defs import walk as walk_defs
from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.defs.train_process import TrainingProcess
from atft_pipeline.defs.walk import WALK_FORWARD, walk_forward_job
from atft_pipeline.lake.store import read_json, read_table, write_json
from atft_pipeline.training.faults import Stopped, TrainingFault
from atft_pipeline.walk_forward import course
from atft_pipeline.walk_forward.checks import CHECKS
from atft_pipeline.walk_forward.course import Course, Step, steps
from atft_pipeline.walk_forward.spec import WalkSpec
from atft_pipeline_tests.training.conftest import Lines
from atft_pipeline_tests.walk_forward.tiny_walk import copied

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120.0
RUN = """
import sys, threading
from pathlib import Path
from atft_pipeline.parent import die_with_parent
from atft_pipeline.training.report import open_reporter
from atft_pipeline.walk_forward.conduct import walk_forward
from atft_pipeline_tests.walk_forward.tiny_walk import CONTRACT, tiny_config, tiny_settings
die_with_parent()
root = Path(sys.argv[1])
with open_reporter() as reporter:
    config = tiny_config(checkpoint_every=1)
    walk_forward(root / "simulated", tiny_settings(root), config, reporter, threading.Event(), CONTRACT)
"""
"""The command's own steps, with the small lake's contract instead of a plan's."""


def begin_again(spec: WalkSpec, k: int) -> None:
    """Forget all of a fold."""
    shutil.rmtree(spec.fold(k).path)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end and (child is None or child.poll() is None), child and child.communicate()[0]
        time.sleep(0.02)


@pytest.mark.slow
def test_a_kill_in_fold_three_costs_only_its_tail(
    walked: WalkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = copied(walked, tmp_path)
    begin_again(spec, 2)
    (spec.path / "results.json").unlink()
    untouched = [spec.fold(k).record.stat().st_mtime_ns for k in range(2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    runs = spec.fold(2).runs
    wait_for(lambda: bool(list(runs.glob("*/ckpt/phase0/last.pt"))), child)
    beat = json.loads((runs / "last" / "heartbeat.json").read_text())
    child.kill()
    said = child.communicate()[0]
    wait_for(lambda: gone(int(beat["pid"])))  # its training does not outlive it
    assert said.count("is finished already") == 2 and not spec.fold(2).finished(spec.seeds)
    prepared = spec.fold(2).manifest.stat().st_mtime_ns

    monkeypatch.setattr(walk_defs, "walk_forward_command", lambda *_: command)
    monkeypatch.setattr(walk_defs, "die_with_parent", lambda: None)
    for name in ("OMP_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, environment[name])
    pipeline = Pipeline(overrides={"ATFT_DATA_DIR": str(tmp_path), "ATFT_MARKET": "simulated"})
    done = walk_forward_job.execute_in_process(resources={"pipeline": pipeline, "training_process": TrainingProcess()})

    assert [spec.fold(k).record.stat().st_mtime_ns for k in range(2)] == untouched
    assert spec.fold(2).manifest.stat().st_mtime_ns == prepared  # not even its panel is made again
    assert "resuming at stage" in spec.fold(2).log.read_text()
    # Killed and resumed, it ends like the one that nothing disturbed.
    for name in ("daily", "scores"):
        paths = [getattr(one.fold(2), name) for one in (spec, walked)]
        assert read_table(paths[0]).equals(read_table(paths[1])), name
    assert read_json(spec.path / "results.json")["models"] == read_json(walked.path / "results.json")["models"]
    metadata = done.asset_materializations_for_node("evaluate_walk_forward")[0].metadata
    assert metadata["walk"].value == spec.id and metadata["folds"].value == 3
    assert "data:image/png" in str(metadata["Cumulative RankIC"].value)
    found = {evaluation.check_name: evaluation.passed for evaluation in done.get_asset_check_evaluations()}
    assert found == dict.fromkeys(CHECKS, True)


def test_the_walk_forward_is_in_no_other_job_and_in_no_selection_of_everything() -> None:
    repository = defs.get_repository_def()
    for job in ("full_rebuild", "nightly", "retrain"):
        assert not [node.name for node in repository.get_job(job).nodes if "walk" in node.name]
    everything = dg.AssetSelection.from_string("*").resolve(repository.asset_graph)
    assert WALK_FORWARD.key in repository.asset_graph.get_all_asset_keys() and WALK_FORWARD.key not in everything
    assert "walk_forward" in repository.job_names


def test_a_failed_check_fails_the_job_and_names_the_reason(
    walked: WalkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = copied(walked, tmp_path)
    manifest = read_json(spec.fold(1).manifest)
    write_json(spec.fold(1).manifest, {**manifest, "stats_hash": "of others"})
    monkeypatch.setattr(walk_defs, "walk_forward_command", lambda *_: ["true"])
    monkeypatch.setattr(walk_defs, "die_with_parent", lambda: None)
    (spec.path.parent / "last").symlink_to(spec.id)
    pipeline = Pipeline(overrides={"ATFT_DATA_DIR": str(tmp_path), "ATFT_MARKET": "simulated"})
    resources = {"pipeline": pipeline, "training_process": TrainingProcess()}
    done = walk_forward_job.execute_in_process(resources=resources, raise_on_error=False)
    assert not done.success
    failed = [e for e in done.get_asset_check_evaluations() if not e.passed]
    assert [e.check_name for e in failed] == ["statistics_of_training_only"]
    assert "scaled by other statistics" in str(failed[0].description)


def scripted(*scripts: str) -> Callable[[WalkSpec, int], Iterator[Step]]:
    """Steps that run a Python script each; {file} is a file of the fold's own that a done step has written."""

    def found(spec: WalkSpec, k: int) -> Iterator[Step]:
        for number, script in enumerate(scripts):
            mark = spec.fold(k).path / f"mark{number}"
            text = f"import os, sys, time; fold, mark = {k}, {str(mark)!r}\n{script}"
            yield Step(f"step {number}", [sys.executable, "-c", text], mark.exists)

    return found


@pytest.fixture
def fresh(walked: WalkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WalkSpec:
    """No fold is done; a fold counts as finished when its second step left its mark."""
    spec = copied(walked, tmp_path)
    shutil.rmtree(spec.path.parent / "folds")
    monkeypatch.setattr(course.FoldFolder, "finished", lambda self, seeds: (self.path / "mark1").exists())
    return spec


DONE = "open(mark, 'w').close()"
KILLED_ONCE = f"""
if not os.path.exists(mark + '.once'):
    open(mark + '.once', 'w').close()
    os.kill(os.getpid(), 9)
{DONE}
"""


def test_a_killed_step_is_begun_again_and_the_others_are_not(fresh: WalkSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    monkeypatch.setattr(course, "steps", scripted(f"print('step one here', flush=True); {DONE}", KILLED_ONCE))
    Course(fresh, lines, threading.Event()).run()
    told = "\n".join(lines.lines)
    assert told.count("step one here") == 3 and told.count("was killed by SIGKILL") == 3
    assert told.count("is finished") == 3
    assert told.index("fold 1 of 3 is finished") < told.index("fold 2 of 3: train")  # one at a time


def test_a_step_that_is_killed_always_ends_the_walk(fresh: WalkSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "steps", scripted("os.kill(os.getpid(), 9)"))
    with pytest.raises(TrainingFault, match="fold 1 of 3, step 0 was killed 3 times"):
        Course(fresh, Lines(), threading.Event()).run()


def test_a_step_that_fails_says_why(fresh: WalkSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "steps", scripted(DONE, "print('the reason'); sys.exit(2)"))
    with pytest.raises(TrainingFault, match="step 1 failed with exit code 2:(.|\n)*the reason"):
        Course(fresh, Lines(), threading.Event()).run()


def test_a_step_that_hangs_is_killed_and_begun_again(fresh: WalkSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    once = f"if fold == 0 and not os.path.exists(mark + 'x'): open(mark + 'x', 'w').close(); time.sleep(60)\n{DONE}"
    monkeypatch.setattr(course, "steps", scripted(DONE, once))
    Course(fresh, lines, threading.Event(), hang_seconds=1.0).run()
    assert sum("did not move" in line for line in lines.lines) == 1 and "fold 3 of 3 is finished" in lines.lines


def test_folds_run_side_by_side_when_asked_and_stop_on_request(
    fresh: WalkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, lines = threading.Event(), Lines()
    both = f"""
{DONE}
other = mark.replace(os.path.basename(os.path.dirname(mark)), os.environ['OTHER'][13 * (fold == 0):][:12])
while not os.path.exists(other): time.sleep(0.02)
"""
    monkeypatch.setattr(course, "steps", scripted(both, "time.sleep(60)"))
    monkeypatch.setattr(course, "GRACE_SECONDS", 2.0)  # a test process may have told its children to ignore SIGTERM
    monkeypatch.setenv("OTHER", f"{fresh.fold_id(0)} {fresh.fold_id(1)}")
    pair = Course(WalkSpec(**{**vars(fresh), "walk": {**fresh.walk, "workers": 2}}), lines, stop)
    ticks = iter(range(10_000))

    def look_at_both() -> bool:
        next(ticks)
        if len(pair.active) == 2 and all(running.step.name == "step 1" for running in pair.active):
            stop.set()  # each waited for the other's mark: they ran side by side
        return threading.Event.is_set(stop)

    monkeypatch.setattr(stop, "is_set", look_at_both)
    with pytest.raises(Stopped, match="the same command goes on"):
        pair.run()
    assert all(running.process.poll() is not None for running in pair.active)  # none is left behind


def test_the_real_steps_know_what_is_done(walked: WalkSpec) -> None:
    found = {step.name: step.done() for step in steps(walked, 0) if step.name != "prepare"}
    assert found == {"seed 7": True, "score": True}
