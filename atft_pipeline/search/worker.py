"""One worker process of a search: claims trials until enough exist, and lives through the failure of any of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import optuna
from optuna.trial import TrialState

from atft_pipeline.search.study import StudyFolder, claim, first_number
from atft_pipeline.training.faults import PanelError, Stopped
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.report import PlainReporter

STOPPED = 130


class Quiet(PlainReporter):
    """Epochs of trials are not news; `runs/<id>` keeps them while a trial runs."""

    def line(self, text: str) -> None:
        return


def work(path: Path, index: int) -> int:
    """Run trials of the study in `path` as worker `index`. Returns an exit code: 0 done, 130 stopped on request."""
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    folder = StudyFolder(path)
    with folder.locked("workers", shared=True):  # who holds it exclusively knows that no worker lives
        spec = folder.read_spec()
        panel = load_panel(Path(spec.panel), verify=False)  # the search verified it when it started
        if panel.hash != spec.panel_hash:
            raise PanelError(f"{spec.panel} is another panel than the study's; start the search again")
        study = folder.open()
        while not stop.is_set() and (trial := claim(folder, study, os.getpid())) is not None:
            from atft_pipeline.search.trial import run_trial  # torch only for a worker that has a trial

            name = f"trial {first_number(trial)}"
            try:
                value = run_trial(folder, spec, trial, panel, folder.heartbeat(index), Quiet(), stop)
            except optuna.TrialPruned as reason:
                study.tell(trial, state=TrialState.PRUNED)
                print(f"{name} pruned: {reason}", flush=True)
            except Stopped:
                return STOPPED  # the trial stays open: the next search resumes it from its checkpoint
            except Exception as error:
                # Pruned, never a number: 0.0 would beat every honest negative.
                trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
                study.tell(trial, state=TrialState.PRUNED)
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
            else:
                study.tell(trial, value)
                print(f"{name}: {value:+.4f} {json.dumps(trial.params)}", flush=True)
    return STOPPED if stop.is_set() else 0
