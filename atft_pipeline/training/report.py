"""Who hears about the run: plain lines on stdout, or Dagster through its Pipes protocol, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from atft_pipeline.training.files import plain


class Reporter(Protocol):
    """Receives one line per event and the result once."""

    def line(self, text: str) -> None:
        """One line for people."""

    def result(self, metadata: dict[str, Any], version: str) -> None:
        """The run's result: flat metadata, and the id that names this version of the model."""


class PlainReporter:
    """Lines on stdout."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def result(self, metadata: dict[str, Any], version: str) -> None:
        for name, value in sorted(metadata.items()):
            self.line(f"{name}: {value}")


class PipesReporter(PlainReporter):
    """Lines become log events of the Dagster run, the result becomes the asset's metadata."""

    def __init__(self, pipes: Any) -> None:
        self._pipes = pipes

    def line(self, text: str) -> None:
        self._pipes.log.info(text)

    def result(self, metadata: dict[str, Any], version: str) -> None:
        given = {k: v for k, v in plain(metadata).items() if v is not None}
        self._pipes.report_asset_materialization(metadata=given, data_version=version)


@contextmanager
def open_reporter() -> Iterator[Reporter]:
    """A Pipes session when this process was started by one, else stdout. dagster-pipes is needed only then."""
    try:
        import dagster_pipes
    except ImportError:
        yield PlainReporter()
        return
    if not dagster_pipes.PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield PlainReporter()
        return
    with dagster_pipes.open_dagster_pipes() as pipes:
        yield PipesReporter(pipes)
