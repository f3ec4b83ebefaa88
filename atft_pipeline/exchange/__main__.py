"""Command line of the exchange: `python -m atft_pipeline.exchange generate|serve|record`."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from atft_pipeline.exchange import faults, revisions
from atft_pipeline.exchange.clock import ClockError, parse_moment
from atft_pipeline.exchange.plans import PLANS, parse_burst
from atft_pipeline.exchange.process import (
    KEY_VARIABLE,
    PARENT_VARIABLE,
    READY,
    RecordedMarketError,
    ensure_market,
    read_market,
)
from atft_pipeline.exchange.server import PREFIX, bind, create_app, make_server
from atft_pipeline.exchange.tables import MarketError
from atft_pipeline.jquants.errors import ExchangeError
from atft_pipeline.parent import die_with_parent
from atft_pipeline.settings import MarketSize, SettingError, Settings, default_data_dir

if TYPE_CHECKING:
    from atft_pipeline.jquants.client import Client

_PARENT_POLL_SECONDS = 0.5


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return {"generate": _generate, "serve": _serve, "record": _record}[options.command](options)
    except (
        RecordedMarketError,
        ExchangeError,
        SettingError,
        MarketError,
        ClockError,
        faults.FaultSyntaxError,
        revisions.RevisionError,
        OSError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.exchange", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="write the simulated market")
    serve = commands.add_parser(
        "serve",
        help="serve it as J-Quants API v2, generating it first if it is absent",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_switches(),
    )
    default_market = default_data_dir() / "simulated" / "market"
    generate.add_argument("--out", type=Path, default=default_market, help="market folder (default: %(default)s)")
    serve.add_argument("--market", type=Path, default=default_market, help="market folder (default: %(default)s)")
    for command in (generate, serve):
        command.add_argument("--stocks", type=int, help=f"issues (default: {MarketSize.stocks})")
        command.add_argument("--start", type=date.fromisoformat, help=f"first date (default: {MarketSize.start})")
        command.add_argument("--end", type=date.fromisoformat, help=f"last date (default: {MarketSize.end})")
        command.add_argument("--seed", type=int, help=f"random seed (default: {MarketSize.seed})")
        command.add_argument("--plant", help=f"planted signal (default: {MarketSize.plant})")
    serve.add_argument("--plan", choices=sorted(PLANS), help="(default: the recording's, else standard)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, loopback only)")
    serve.add_argument("--port", type=int, default=8765, help="0 takes a free port (default: %(default)s)")
    serve.add_argument("--page-rows", type=int, default=1500, help="rows per page (default: %(default)s)")
    serve.add_argument("--requests-per-minute", type=int, help="instead of the plan's own limit")
    serve.add_argument(
        "--burst", type=parse_burst, metavar="N[/SECONDS]", help="lock out who sends more (default: off)"
    )
    serve.add_argument(
        "--today", type=parse_moment, metavar="DATE[THH:MM]", help="exchange time, Tokyo (default: after everything)"
    )
    serve.add_argument("--fault", action="append", default=[], metavar="KIND:TABLE[:OPTION=VALUE...]", help="see below")
    serve.add_argument(
        "--revision", action="append", default=[], metavar="KIND:TABLE:since=TIME:date=DATE[...]", help="see below"
    )
    serve.add_argument("--revisions", type=Path, metavar="FILE", help="a JSON list of revisions")
    serve.add_argument("--access-log", action="store_true", help="one line per request, without headers")
    record = commands.add_parser(
        "record", help="copy a real service into a market folder, for your own use only (see docs/reliability.md)"
    )
    record.add_argument("--out", type=Path, required=True, help="market folder; an interrupted recording goes on")
    record.add_argument("--tables", nargs="+", metavar="TABLE", help="(default: all of the plan)")
    record.add_argument("--start", type=date.fromisoformat, required=True)
    record.add_argument("--end", type=date.fromisoformat, required=True)
    record.add_argument("--plan", choices=sorted(PLANS), help="(default: JQUANTS_PLAN, else asked of the service)")
    return parser


def _switches() -> str:
    """The kinds of faults and revisions, for the help text."""
    lines = ["faults (options of all: date, code, page, times, after, since, until; TABLE * is every table):"]
    for name, kind in faults.KINDS.items():
        options = f" [{', '.join(kind.options)}]" if kind.options else ""
        lines.append(f"  {name:13} {kind.does}{options}")
    lines += ["", "revisions (since: exchange time; options: code, column, factor, value, COLUMN=value):"]
    lines += [f"  {name:13} {does}" for name, does in revisions.KINDS.items()]
    return "\n".join(lines)


def _given_size(options: argparse.Namespace) -> dict[str, int | date | str]:
    names = ("stocks", "start", "end", "seed", "plant")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _generate(options: argparse.Namespace) -> int:
    ensure_market(MarketSize(**_given_size(options)), options.out)  # type: ignore[arg-type]
    print(f"market at {options.out}")
    return 0


def _record(options: argparse.Namespace) -> int:
    from atft_pipeline.exchange.record import Order, record  # serving must not load the official client
    from atft_pipeline.jquants.tables import TABLES

    client = _recording_client(options.plan, options.end)
    tables = options.tables or [table.name for table in TABLES.values() if client.plan.includes(table.plan)]
    print("for your own use only: do not redistribute, delete it when the subscription ends")
    record(client, options.out, Order(tables, options.start, options.end), print)
    print(f"recorded market at {options.out}")
    return 0


def _recording_client(plan: str | None, today: date) -> Client:
    """A client by the environment's settings, for `plan` or the one that the service says the key has."""
    from atft_pipeline.jquants.client import connect
    from atft_pipeline.jquants.plans import probe_plan

    settings = Settings.from_env()
    limits = settings.lake / "requests.json"  # shared with whatever else runs on this key
    known = plan or os.environ.get("JQUANTS_PLAN") or ""

    def connected(name: str) -> Client:
        return connect(settings.base_url, "", name, settings.requests_per_minute, limits_file=limits)

    return connected(known or probe_plan(connected("free"), today).name)


def _serve(options: argparse.Namespace) -> int:
    if options.access_log:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _die_with_parent(int(os.environ.get(PARENT_VARIABLE, "0")))
    switched = [faults.parse_fault(text) for text in options.fault]
    revised = [revisions.parse_revision(text) for text in options.revision]
    revised += revisions.read_revisions(options.revisions) if options.revisions else []
    given = _given_size(options)
    present = read_market(options.market)
    if present is None:
        ensure_market(MarketSize(**given), options.market)  # type: ignore[arg-type]
    elif any(str(present.get(name)) != str(value) for name, value in given.items()):
        raise MarketError(
            f"{options.market} holds another market ({', '.join(f'{name} {present.get(name)}' for name in given)}); "
            "run `generate` first or name another folder with --market"
        )
    # uvicorn raises a caught signal again when it has shut down; an exit then lets the key file go.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    key, key_file = _api_key()
    try:
        app = create_app(
            options.market,
            plan=options.plan or str((read_market(options.market) or {}).get("plan", "standard")),
            api_keys={key},
            faults=switched,
            requests_per_minute=options.requests_per_minute,
            page_rows=options.page_rows,
            burst=options.burst,
            now=options.today,
            revisions=revised,
        )
        listener = bind(options.host, options.port)
        if key_file:
            print(f"the API key is in {key_file}")
        print(f"{READY}http://{options.host}:{listener.getsockname()[1]}{PREFIX}", flush=True)
        make_server(app, access_log=options.access_log).run(sockets=[listener])
    finally:
        if key_file:
            key_file.unlink(missing_ok=True)
    return 0


def _api_key() -> tuple[str, Path | None]:
    """The key from the environment, or a random one and the file (readable by its owner only) that holds it."""
    key = os.environ.pop(KEY_VARIABLE, "")
    if key:
        return key, None
    key = secrets.token_urlsafe(24)
    descriptor, name = tempfile.mkstemp(prefix="atft-exchange-key-")  # created with mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return key, Path(name)


def _die_with_parent(parent: int) -> None:
    """End this process when process `parent` ends, even by SIGKILL; 0 is nobody."""
    if not parent:
        return
    if sys.platform == "linux":
        die_with_parent()
    else:
        threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the line above took hold
        os._exit(1)


def _exit_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
