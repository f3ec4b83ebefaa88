"""Counts, over all months, the rows that break each rule of a table."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from atft_pipeline.jquants.checks.rule import Rule
from atft_pipeline.jquants.checks.scan import Month
from atft_pipeline.jquants.table import Table
from atft_pipeline.verdict import Verdict

SAMPLES = 5


class Rows:
    """Evaluates row rules. A rule whose columns a month lacks fails, unless its scope is optional."""

    def __init__(self, table: Table, rules: Sequence[Rule]) -> None:
        self._table = table
        self._rules = rules
        self._rows = 0
        self._broken = {rule.name: 0 for rule in rules}
        self._samples: dict[str, list[str]] = {rule.name: [] for rule in rules}
        self._lacking: dict[str, list[str]] = {rule.name: [] for rule in rules}

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self._table.keys, *(column for rule in self._rules for column in rule.columns))

    def add(self, month: Month) -> None:
        self._rows += month.rows.height
        able: list[Rule] = []
        for rule in self._rules:
            if all(column in month.rows.columns for column in rule.columns):
                able.append(rule)
            elif rule.scope == "declared":
                self._lacking[rule.name].append(month.name)
        if not able or not month.rows.height:
            return
        counts = month.rows.select(rule.broken.cast(pl.Int64).sum().alias(rule.name) for rule in able).row(
            0, named=True
        )
        for rule in able:
            if not counts[rule.name]:
                continue
            self._broken[rule.name] += counts[rule.name]
            if len(self._samples[rule.name]) < SAMPLES:
                keys = [key for key in self._table.keys if key in month.rows.columns]
                bad = month.rows.filter(rule.broken).select(keys).head(SAMPLES - len(self._samples[rule.name]))
                self._samples[rule.name] += [" ".join(map(str, row)) for row in bad.iter_rows()]

    def verdicts(self) -> dict[str, Verdict]:
        return {rule.name: self._verdict(rule) for rule in self._rules}

    def _verdict(self, rule: Rule) -> Verdict:
        broken, lacking = self._broken[rule.name], self._lacking[rule.name]
        share = broken / self._rows if self._rows else 0.0
        details: dict[str, object] = {"rows": self._rows, "share": share, "allowed_share": rule.allowed}
        if lacking:
            details["months_without_columns"] = lacking
            message = f"{self._table.name}: {', '.join(rule.columns)} not all there in {len(lacking)} months"
            return Verdict(False, float(broken), 0.0, message, details, "error")
        message = f"{self._table.name}: {broken} of {self._rows} rows break: {rule.says}"
        if not broken:
            return Verdict(True, 0.0, 0.0, f"{self._table.name}: {rule.says} in all {self._rows} rows", details)
        details["examples"] = self._samples[rule.name]
        message += f"; e.g. {self._samples[rule.name][0]}. {rule.why}"
        tolerated = share <= rule.allowed
        if tolerated and rule.severity == "warn":  # an oddity as rare as it is known to be
            return Verdict(True, float(broken), 0.0, message, details, "warn")
        return Verdict(False, float(broken), 0.0, message, details, "warn" if tolerated else rule.severity)
