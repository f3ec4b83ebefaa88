"""Runs a child process through Dagster Pipes and never leaves one behind.

Dagster's own subprocess client has no timeout and sends one SIGINT only; this client watches the child's heartbeat,
limits its time, and ends the whole process group.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from atft_pipeline.lake.store import write_json

POLL_SECONDS = 0.5
STACKS_SHOWN = 20_000
"""Characters of a stalled training's stacks that go into its report."""


def memory_kills() -> int:
    """Processes that the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _sign_of_life(heartbeat: Path) -> str:
    """What changes when training moves: its own count of moves, not the thread that writes the file."""
    try:
        text = heartbeat.read_text()
        beat = json.loads(text)
    except OSError:
        return ""
    except json.JSONDecodeError:
        return text
    return f"{beat.get('pid')} {beat.get('moves', beat.get('beat'))}" if isinstance(beat, dict) else text


class TrainingProcess(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How long a training child may stand still, run, and take to stop; and how often a crashed one is started again.

    Only a child that a signal killed (a crash, the kernel's out-of-memory killer) is started again: it resumes from its
    last checkpoint. One that ended by itself has said why, and would say it again. Of one that could not say it any
    more, `failure_report.json` beside its heartbeat tells what is known.
    """

    hang_seconds: float = 600.0
    max_seconds: float = 36_000.0
    grace_seconds: float = 30.0
    restarts: int = 1

    def run(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        command: Sequence[str],
        *,
        heartbeat: Path,
        env: dict[str, str] | None = None,
        trainings: int = 1,
        when_out_of_memory: Sequence[str] = (),
    ) -> dg.PipesExecutionResult | Sequence[dg.PipesExecutionResult]:
        """Run `command`, stream what it reports, and return its results.

        The child counts as alive while its heartbeat reports moves; one that does several `trainings` may run so many
        times as long. Raises `dg.Failure` when the child fails,
        hangs or exceeds its time; a cancelled run stops the child first, gently, then by force. A child that the kernel
        killed for its memory is started again with the arguments `when_out_of_memory` added.
        """
        command = list(command)
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        ) as session:
            for left in range(self.restarts, -1, -1):
                kills = memory_kills()
                child = subprocess.Popen(
                    command,
                    start_new_session=True,
                    env={**os.environ, **(env or {}), **session.get_bootstrap_env_vars()},
                )
                try:
                    reason = self._watch(child, heartbeat, self.max_seconds * trainings)
                except (DagsterExecutionInterruptedError, KeyboardInterrupt):
                    self._stop(child)
                    raise
                crashed = child.returncode is not None and child.returncode < 0
                if not reason or not crashed or not left:
                    break
                name = signal.Signals(-child.returncode).name
                context.log.warning(f"the training process was killed by {name}; starting it again, it resumes")
                if child.returncode == -signal.SIGKILL and memory_kills() > kills and when_out_of_memory:
                    context.log.warning(f"memory ran out; this time with {' '.join(when_out_of_memory)}")
                    command = [*command, *when_out_of_memory]
            if reason:
                spoke = child.returncode is not None and child.returncode > 0
                self._stop(child)
                if not spoke:
                    _report(heartbeat, child.pid, reason)
                raise dg.Failure(description=reason, allow_retries=False)
        return session.get_results()

    def _watch(self, child: subprocess.Popen[bytes], heartbeat: Path, max_seconds: float) -> str | None:
        """Wait for the child. Returns None when it ended well, else the reason why it must not count."""
        started = last_sign = time.monotonic()
        seen = _sign_of_life(heartbeat)
        while (code := child.poll()) is None:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            sign = _sign_of_life(heartbeat)
            if sign != seen:
                seen, last_sign = sign, now
            if now - last_sign > self.hang_seconds:
                return f"training gave no sign of life for {self.hang_seconds:.0f} s; it was stopped"
            if now - started > max_seconds:
                return f"training passed its limit of {max_seconds:.0f} s; it was stopped"
        if code == 0:
            return None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        return f"the training process {how}; see its log above and failure_report.json in its run folder"

    def _stop(self, child: subprocess.Popen[bytes]) -> None:
        """SIGINT (the child saves a checkpoint), then SIGKILL to the whole group after the grace period."""
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(self.grace_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _report(heartbeat: Path, pid: int, reason: str) -> None:
    """Leave `failure_report.json` for a child that died without one: the reason, its last heartbeat, its stacks."""
    try:
        beat = json.loads(heartbeat.read_text())
    except (OSError, json.JSONDecodeError):
        return  # it never came to a run folder: the reason in the run's log is all that there is
    if not isinstance(beat, dict) or beat.get("pid") != pid:
        return
    stacks = heartbeat.with_name("stacks.txt")
    text = stacks.read_text(errors="replace")[-STACKS_SHOWN:] if stacks.exists() else ""
    found = {
        "type": "Stopped from outside",
        "message": reason,
        "where": beat,
        "stacks": text,
        "remedy": "look at the stacks and at the run's log; the same command resumes from the last checkpoint",
    }
    write_json(heartbeat.with_name("failure_report.json"), found)
