"""Qlib's side of benchmarks/alpha158.py: run by an interpreter that has pyqlib and nothing of ours.

    python alpha158_qlib.py FOLDER PROCESSES COMPARED

Evaluates the expressions that Qlib's Alpha158 publishes on FOLDER's data, without any disk cache; writes values.npz of
the first COMPARED stocks and prints seconds as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import qlib
from qlib.config import REG_CN
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D


def main(folder: str, processes: str, compared: str) -> None:
    qlib.init(
        provider_uri=folder, region=REG_CN, kernels=int(processes), expression_cache=None, dataset_cache=None,
        logging_level=40,
    )  # fmt: skip
    fields, names = Alpha158DL.get_feature_config()
    days = D.calendar(freq="day")
    everyone = D.list_instruments(D.instruments("all"), start_time=days[0], end_time=days[-1], as_list=True)
    began, spent = time.perf_counter(), cpu_seconds()
    frame = D.features(everyone, fields, days[0], days[-1], freq="day")
    figures = {"wall_s": time.perf_counter() - began, "cpu_s": cpu_seconds() - spent, "version": qlib.__version__}
    frame.columns = names
    stocks = sorted(everyone)[: int(compared)]
    values = {name: frame[name].unstack(level=0)[stocks].to_numpy() for name in names}
    np.savez(Path(folder) / "values.npz", **values)
    print(json.dumps(figures))


def cpu_seconds() -> float:
    """Of this process and of the workers that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    main(*sys.argv[1:])
