"""The shape of a check's answer, the same in every room: what was seen, what was wanted, and a sentence for people.

The Dagster layer turns a `Verdict` into an asset check result; a writer that must refuse calls `Verdict.require`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warn"]
"""`error`: what follows would be wrong, so it must not run. `warn`: odd, worth a look, and harmless to what follows."""


class ContractBroken(Exception):
    """A rule that the data must obey does not hold; nothing was written."""


@dataclass(frozen=True)
class Verdict:
    """One judged rule. `got` and `want` are numbers, so that a UI can draw their history."""

    passed: bool
    got: float
    want: float
    message: str
    details: Mapping[str, object] = field(default_factory=dict)
    severity: Severity = "error"
    """How bad it is when it did not pass."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not a number is stored as null."""
        return {**asdict(self), "details": dict(self.details)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_json` after JSON: a null number is NaN again."""
        numbers = {name: float("nan") if body[name] is None else float(body[name]) for name in ("got", "want")}
        return cls(**{**body, **numbers})

    def require(self) -> Verdict:
        """Return self, or raise `ContractBroken` with the message."""
        if not self.passed:
            raise ContractBroken(self.message)
        return self
