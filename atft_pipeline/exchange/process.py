"""The exchange as a child process, and the market that it serves. Standard library only until a market is generated."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import IO

from atft_pipeline.settings import MarketSize

KEY_VARIABLE = "ATFT_EXCHANGE_KEY"
PARENT_VARIABLE = "ATFT_EXCHANGE_PARENT"
"""Process id that the exchange must not outlive; set by `running_exchange`, read by `__main__`."""
READY = "exchange ready at "
"""What `serve` prints, followed by the base URL, once it accepts connections."""
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_CONTROL_SECONDS = 30.0
_STDERR_TAIL = 2000
_ROOT = Path(__file__).resolve().parents[2]


class ExchangeStartError(RuntimeError):
    """The exchange did not start; the text carries the end of its error output."""


class RecordedMarketError(RuntimeError):
    """A simulated market was to take the place of a recorded one."""


@dataclass(frozen=True)
class Exchange:
    """A running exchange: what a client needs, and the process that serves it."""

    base_url: str
    api_key: str = field(repr=False)
    pid: int = 0


@contextmanager
def running_exchange(
    market_dir: Path,
    *,
    plan: str = "standard",
    requests_per_minute: int | None = None,
    faults: Sequence[object] = (),
    page_rows: int = 1500,
    api_key: str | None = None,
    burst: object | None = None,
    today: date | datetime | None = None,
    revisions: Sequence[object] = (),
) -> Iterator[Exchange]:
    """Serve `market_dir` from a child process on a free loopback port for the length of the context.

    `faults`, `revisions` and `burst` are `Fault`, `Revision` and `Burst` objects or their text; `today` is the exchange
    time (a date: its end; None: after everything), which `move_clock` changes later. The key (random by default)
    travels by environment only. On Linux the child is killed with the *thread* that entered the context, so enter it in
    a thread that outlives it.
    Raises `ExchangeStartError` when the child does not become ready.
    """
    if read_market(market_dir) is None:
        raise ExchangeStartError(f"{market_dir} holds no market to serve; call ensure_market or `generate` first")
    key = api_key or secrets.token_urlsafe(24)
    command = [
        sys.executable,
        "-m",
        "atft_pipeline.exchange",
        "serve",
        "--market",
        str(market_dir.resolve()),
        "--plan",
        plan,
    ]
    command += ["--port", "0", "--page-rows", str(page_rows)]
    if requests_per_minute is not None:
        command += ["--requests-per-minute", str(requests_per_minute)]
    if burst is not None:
        command += ["--burst", str(burst)]
    if today is not None:
        command += ["--today", today.isoformat()]
    for fault in faults:
        command += ["--fault", str(fault)]
    for revision in revisions:
        command += ["--revision", str(revision)]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=_child_environment(key),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Exchange(_wait_until_ready(child, errors, market_dir), key, child.pid)
        finally:
            _stop(child)


def move_clock(exchange: Exchange, now: datetime | None) -> None:
    """Put the exchange time of a running exchange to `now`, Tokyo time; None: after everything.

    Raises `ValueError` with the exchange's own words when it cannot stand there.
    """
    order = json.dumps({"now": None if now is None else now.isoformat()}).encode()
    _control(exchange, "clock", order)


def traffic_report(exchange: Exchange, *, listed: bool = False) -> dict[str, object]:
    """What a running exchange was asked so far; `listed` adds every single request."""
    return _control(exchange, f"requests?list={int(listed)}")


def _control(exchange: Exchange, what: str, order: bytes | None = None) -> dict[str, object]:
    url = f"{exchange.base_url.removesuffix('/v2')}/_exchange/{what}"
    request = urllib.request.Request(url, data=order, headers={"x-api-key": exchange.api_key})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    try:
        with direct.open(request, timeout=_CONTROL_SECONDS) as reply:
            answer: dict[str, object] = json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(json.loads(error.read())["message"]) from None
    return answer


def _child_environment(key: str) -> dict[str, str]:
    """The parent's environment without the real service's key."""
    kept = {name: value for name, value in os.environ.items() if name != "JQUANTS_API_KEY"}
    return kept | {KEY_VARIABLE: key, PARENT_VARIABLE: str(os.getpid())}


def _wait_until_ready(child: subprocess.Popen[bytes], errors: IO[bytes], market_dir: Path) -> str:
    """Read the child's output up to the ready line and return the base URL."""
    assert child.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    output = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([child.stdout], [], [], left)[0]:
            break
        chunk = os.read(child.stdout.fileno(), 4096)
        output += chunk
        for line in output.decode(errors="replace").splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                return line.removeprefix(READY).strip()
        if not chunk:
            break
    what = "ended" if _has_ended(child) else f"was not ready after {_START_SECONDS:.0f} s"
    _stop(child)
    errors.seek(0)
    tail = errors.read().decode(errors="replace")[-_STDERR_TAIL:].strip()
    raise ExchangeStartError(
        f"the exchange over {market_dir} {what} (exit code {child.returncode}): {tail or 'no error output'}"
    )


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child is gone, with a moment's grace: its output closes just before it ends."""
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def ensure_market(size: MarketSize, market_dir: Path) -> dict[str, object]:
    """Generate the market when `market_dir` is absent or holds another one; return its market.json.

    Raises `RecordedMarketError` where a recording lies, which nothing here could bring back.
    Safe to call from several processes at once: one generates, the others wait for it.
    """
    from atft_pipeline.exchange import market  # serving must not load the generator

    if (read_market(market_dir) or {}).get("recorded"):
        raise RecordedMarketError(f"{market_dir} holds a recorded market; name another folder for a simulated one")
    market_dir.parent.mkdir(parents=True, exist_ok=True)
    with (market_dir.parent / f".{market_dir.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return market.generate(size, market_dir)


def read_market(market_dir: Path) -> dict[str, object] | None:
    """market.json of `market_dir`, or None where there is no market."""
    path = market_dir / "market.json"
    return json.loads(path.read_text()) if path.is_file() else None
