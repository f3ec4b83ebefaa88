"""How a plain `Verdict` becomes a Dagster asset check, and how pictures and tables become metadata."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from atft_pipeline.defs.resources import Pipeline
from atft_pipeline.verdict import Verdict

MAX_PICTURE_BYTES = 50_000
"""Metadata lives in the event row; larger pictures belong in the report."""


def verdict_check(
    asset: dg.AssetKey,
    name: str,
    judge: Callable[[Pipeline], Verdict],
    *,
    blocking: bool = True,
    description: str | None = None,
) -> dg.AssetChecksDefinition:
    """An asset check that calls `judge` and reports `got` and `want` as numbers, so that the UI draws their history."""

    @dg.asset_check(asset=asset, name=name, blocking=blocking, description=description or judge.__doc__)
    def check(pipeline: Pipeline) -> dg.AssetCheckResult:
        return check_result(judge(pipeline))

    return check


def check_result(verdict: Verdict, name: str | None = None) -> dg.AssetCheckResult:
    """`name` is needed where one function reports several checks."""
    metadata: dict[str, Any] = {"got": float(verdict.got), "want": float(verdict.want)}
    metadata |= {key: plain(value) for key, value in verdict.details.items()}
    severity = dg.AssetCheckSeverity.WARN if verdict.severity == "warn" else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=verdict.passed, description=verdict.message, metadata=metadata, severity=severity, check_name=name
    )


def plain(value: object) -> Any:
    """A metadata value that Dagster accepts: numbers and text as they are, anything else as JSON-like text."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return dg.MetadataValue.json({str(k): v for k, v in value.items()})
    return str(value)


def picture(png: bytes | Path, title: str) -> dg.MarkdownMetadataValue:
    """A PNG as inline metadata. Raises ValueError above 50 KB."""
    data = png.read_bytes() if isinstance(png, Path) else png
    if len(data) > MAX_PICTURE_BYTES:
        raise ValueError(f"picture '{title}' has {len(data):,} bytes; metadata takes at most {MAX_PICTURE_BYTES:,}")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(data).decode()})")


def column_schema(columns: Mapping[str, str], descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Names and types as a table schema; kept on asset definitions, where it costs nothing per event."""
    notes = descriptions or {}
    return dg.TableSchema([dg.TableColumn(name, dtype, description=notes.get(name)) for name, dtype in columns.items()])
