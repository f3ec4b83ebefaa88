"""The guarded child: it streams, it fails with a reason, it cannot hang the run and it cannot outlive it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from atft_pipeline.defs import train_process
from atft_pipeline.defs.train_process import TrainingProcess

PREAMBLE = "import os, pathlib, signal, sys, time\nfrom dagster_pipes import open_dagster_pipes\n"


def run_child(tmp_path: Path, body: str, **limits: float) -> dg.ExecuteInProcessResult:
    script = tmp_path / "child.py"
    script.write_text(PREAMBLE + body)

    @dg.asset
    def trained(context: dg.AssetExecutionContext, process: TrainingProcess) -> dg.MaterializeResult:
        results = process.run(
            context,
            [sys.executable, str(script), str(tmp_path)],
            heartbeat=tmp_path / "beat",
            when_out_of_memory=["lower"],
        )
        return next(iter(results))  # type: ignore[call-overload,no-any-return]

    return dg.materialize([trained], resources={"process": TrainingProcess(**limits)}, raise_on_error=False)


def is_running(pid: int) -> bool:
    """False for a process that is gone, or a zombie waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    return " ".join(str(event.event_specific_data) for event in result.all_events if event.is_failure)


def test_what_the_child_reports_reaches_the_run(tmp_path: Path) -> None:
    result = run_child(
        tmp_path,
        "with open_dagster_pipes() as pipes:\n"
        "    pipes.log.info('epoch 1')\n    pipes.report_asset_materialization(metadata={'rank_ic': 0.03})\n",
    )
    assert result.success
    event = result.asset_materializations_for_node("trained")[0]
    assert event.metadata["rank_ic"].value == 0.03


def test_a_failing_child_fails_the_run_with_its_exit_code(tmp_path: Path) -> None:
    result = run_child(tmp_path, "sys.exit(3)\n")
    assert not result.success and "exit code 3" in failure_text(result)


def test_a_silent_child_that_ignores_the_interrupt_is_killed(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1], 'pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    result = run_child(tmp_path, body, hang_seconds=1.5, grace_seconds=0.5)
    assert not result.success and "no sign of life" in failure_text(result)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_beating_child_is_left_alone_until_its_limit(tmp_path: Path) -> None:
    body = (
        "beat = pathlib.Path(sys.argv[1], 'beat')\n"
        "while True:\n    beat.write_text(str(time.time()))\n    time.sleep(0.1)\n"
    )
    result = run_child(tmp_path, body, hang_seconds=1.5, max_seconds=3.0, grace_seconds=1.0)
    assert not result.success and "passed its limit" in failure_text(result)


def test_a_heartbeat_without_moves_is_a_hang(tmp_path: Path) -> None:
    """The thread that writes the file lives on when training hangs. What it could still tell goes into a report."""
    body = (
        "pathlib.Path(sys.argv[1], 'stacks.txt').write_text('File engine.py, line 7 in step')\n"
        "import json\nbeat = pathlib.Path(sys.argv[1], 'beat')\nn = 0\n"
        "while True:\n    n += 1\n    part = beat.with_name('part')\n"
        "    part.write_text(json.dumps({'beat': n, 'pid': os.getpid(), 'moves': min(n, 5), 'phase': 2}))\n"
        "    part.replace(beat)\n    time.sleep(0.1)\n"
    )
    result = run_child(tmp_path, body, hang_seconds=1.5, max_seconds=60.0, grace_seconds=1.0)
    assert not result.success and "no sign of life" in failure_text(result)
    report = json.loads((tmp_path / "failure_report.json").read_text())
    assert "no sign of life" in report["message"] and report["where"]["phase"] == 2
    assert report["stacks"] == "File engine.py, line 7 in step"


def test_a_child_that_reported_itself_keeps_its_own_report(tmp_path: Path) -> None:
    body = (
        "import json\nfolder = pathlib.Path(sys.argv[1])\n"
        "(folder / 'beat').write_text(json.dumps({'pid': os.getpid()}))\n"
        "(folder / 'failure_report.json').write_text('its own')\nsys.exit(1)\n"
    )
    assert not run_child(tmp_path, body).success
    assert (tmp_path / "failure_report.json").read_text() == "its own"


def test_a_child_killed_for_its_memory_comes_back_with_smaller_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "with open(pathlib.Path(sys.argv[1], 'starts'), 'a') as starts:\n    print(*sys.argv[2:], file=starts)\n"
        "if 'lower' not in sys.argv:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "with open_dagster_pipes() as pipes:\n    pipes.report_asset_materialization(metadata={'resumed': True})\n"
    )
    kills = iter(range(100))
    monkeypatch.setattr(train_process, "memory_kills", lambda: next(kills))
    assert run_child(tmp_path, body).success
    assert (tmp_path / "starts").read_text() == "\nlower\n"
    assert isinstance(train_process.memory_kills(), int)


def test_a_crashed_child_is_started_again_once(tmp_path: Path) -> None:
    body = (
        "mark = pathlib.Path(sys.argv[1], 'crashed')\n"
        "if not mark.exists():\n    mark.write_text('')\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "with open_dagster_pipes() as pipes:\n    pipes.report_asset_materialization(metadata={'resumed': True})\n"
    )
    result = run_child(tmp_path, body)
    assert result.success
    always = run_child(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)\n")
    assert not always.success and "killed by SIGKILL" in failure_text(always)


def test_a_cancelled_run_lets_the_child_save_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "folder = pathlib.Path(sys.argv[1])\n"
        "def save(number, frame):\n    (folder / 'saved').write_text('')\n    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n(folder / 'pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )

    def cancelled(heartbeat: Path) -> str:
        if (tmp_path / "pid").exists():
            raise DagsterExecutionInterruptedError
        return ""

    monkeypatch.setattr(train_process, "_sign_of_life", cancelled)
    assert not run_child(tmp_path, body, grace_seconds=20.0).success
    assert (tmp_path / "saved").exists() and not is_running(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is a Linux facility")
def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    child = (
        "import ctypes, os, pathlib, signal, sys, time\nfrom atft_pipeline.parent import die_with_parent\n"
        "die_with_parent()\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1]], start_new_session=True)\ntime.sleep(600)\n"
    )
    pid_file = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", parent, str(pid_file)])
    deadline = time.monotonic() + 60
    while not pid_file.exists() or not pid_file.read_text():
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while is_running(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
    assert not is_running(pid)
