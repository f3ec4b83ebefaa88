"""Every line of the list of regressions that this project exists to prevent has a test that carries its number."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent

MODEL, LOSS, METRICS = range(1, 15), range(15, 23), range(23, 32)
TRAINING, DATA = range(32, 43), range(43, 53)
NOT_YET: dict[int, str] = {}


def test_every_numbered_regression_has_a_test() -> None:
    found: dict[int, list[str]] = {}
    for path in ROOT.rglob("test_*.py"):
        for number, name in re.findall(r"def (?:test_t(\d\d)_)(\w+)", path.read_text()):
            found.setdefault(int(number), []).append(name)
    wanted = {*MODEL, *LOSS, *METRICS, *TRAINING, *DATA}
    missing = sorted(wanted - set(found) - set(NOT_YET))
    assert missing == [], f"no test is called test_t{missing[0]:02d}_..."
    assert not set(NOT_YET) & set(found), "a regression of NOT_YET has its test now: take it out of NOT_YET"
    assert set(found) <= wanted
