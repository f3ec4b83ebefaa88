"""The exchange as a child process: ready, private, mortal; and its command line."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from requests.exceptions import HTTPError

from atft_pipeline.exchange import __main__ as command
from atft_pipeline.exchange import process
from atft_pipeline.exchange.faults import Fault
from atft_pipeline.exchange.process import ExchangeStartError, ensure_market, running_exchange
from atft_pipeline.settings import MarketSize
from atft_pipeline_tests.exchange import wire


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wire.write_market(tmp_path_factory.mktemp("process") / "market")


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie whose parent has not yet collected it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_child_serves_on_a_free_port_and_stops_with_the_context(market: Path) -> None:
    with running_exchange(market) as first, running_exchange(market, plan="light") as second:
        assert first.base_url != second.base_url and first.api_key != second.api_key
        assert len(wire.official_client(first.base_url, first.api_key).get_eq_master()) == len(wire.CODES)
        with pytest.raises(HTTPError, match="invalid or expired"):
            wire.official_client(first.base_url, second.api_key).get_eq_master()
        with pytest.raises(HTTPError, match="not available on your subscription"):
            wire.official_client(second.base_url, second.api_key).get_idx_bars_daily(code="0000")
    assert not is_alive(first.pid) and not is_alive(second.pid)


def test_the_key_travels_by_environment_only_and_is_not_shown(market: Path) -> None:
    with running_exchange(market, api_key="secret-5f1c") as exchange:
        arguments = Path(f"/proc/{exchange.pid}/cmdline").read_bytes()
        assert b"serve" in arguments and b"secret-5f1c" not in arguments
        assert exchange.api_key == "secret-5f1c" and "secret-5f1c" not in repr(exchange)


def test_the_real_service_s_key_is_kept_from_the_child(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JQUANTS_API_KEY", "real-key")
    with running_exchange(market) as exchange:
        assert b"real-key" not in Path(f"/proc/{exchange.pid}/environ").read_bytes()


def test_options_reach_the_child(market: Path) -> None:
    faults = [Fault("500", "master", times=1), "partial:bars_daily:share=0.5"]
    with running_exchange(market, requests_per_minute=3, faults=faults, page_rows=10) as exchange:
        client = wire.official_client(exchange.base_url, exchange.api_key)
        with pytest.raises(HTTPError, match="500"):
            client.get_eq_master()
        assert len(client.get_eq_bars_daily(date_yyyymmdd="20240510")) == 2
        payload = client._get(f"{exchange.base_url}/equities/bars/daily", {"code": "72030"}).json()
        assert len(payload["data"]) == 10 and payload["pagination_key"]
        with pytest.raises(HTTPError, match="429"):
            client.get_eq_master()


def test_it_stops_when_the_body_raises(market: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), running_exchange(market) as exchange:
        raise RuntimeError("mine")
    assert not is_alive(exchange.pid)


def test_it_dies_with_a_killed_parent(market: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from atft_pipeline.exchange.process import running_exchange\n"
        "with running_exchange(Path(sys.argv[1])) as exchange: print(exchange.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(market)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert is_alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not is_alive(child))


def test_a_failed_start_shows_the_child_s_own_error(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ExchangeStartError, match="unknown kind '418'"), running_exchange(market, faults=["418:master"]):
        pass
    with pytest.raises(ExchangeStartError, match="holds no market to serve"), running_exchange(tmp_path / "none"):
        pass
    broken = wire.write_market(tmp_path / "market")
    (broken / "tables" / "master.parquet").write_bytes(b"not parquet")
    message = r"ended \(exit code 2\): error: .*master\.parquet"
    with pytest.raises(ExchangeStartError, match=message), running_exchange(broken):
        pass


def test_serve_without_a_key_makes_a_private_file_removes_it_and_never_logs_it(market: Path, tmp_path: Path) -> None:
    kept = {name: text for name, text in os.environ.items() if name != process.KEY_VARIABLE}
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "atft_pipeline.exchange",
            "serve",
            "--market",
            str(market),
            "--port",
            "0",
            "--access-log",
        ],
        env=kept | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    with child.stdout, child.stderr:
        lines = [child.stdout.readline() for _ in range(2)]
        key_file = Path(re.fullmatch(r"the API key is in (.+)\n", lines[0])[1])  # type: ignore[index]
        key = key_file.read_text()
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert key and key not in "".join(lines)
        url = lines[1].removeprefix(process.READY).strip()
        assert len(wire.official_client(url, key).get_eq_master()) == len(wire.CODES)
        child.terminate()
        log = child.stderr.read()
        child.wait(10)
    assert "GET /v2/equities/master" in log and key not in log
    assert not key_file.exists()


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the market generator: slow, and aware of company."""
    seen = SimpleNamespace(sizes=[], inside=0, most=0)

    def generate(size: MarketSize, out: Path) -> dict[str, object]:
        seen.sizes.append(size)
        seen.inside += 1
        seen.most = max(seen.most, seen.inside)
        time.sleep(0.05)
        seen.inside -= 1
        return {"stocks": size.stocks}

    stand_in = SimpleNamespace(generate=generate)
    monkeypatch.setitem(sys.modules, "atft_pipeline.exchange.market", stand_in)
    monkeypatch.setattr("atft_pipeline.exchange.market", stand_in, raising=False)
    return seen


def test_ensure_market_lets_one_generator_in_at_a_time(generator: SimpleNamespace, tmp_path: Path) -> None:
    size = MarketSize(stocks=3)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ensure_market(size, tmp_path / "deep" / "market"), range(4)))
    assert answers == [{"stocks": 3}] * 4 and generator.sizes == [size] * 4 and generator.most == 1


def test_generate_takes_the_size_from_the_command_line(generator: SimpleNamespace, tmp_path: Path) -> None:
    options = ["--stocks", "9", "--start", "2022-01-04", "--end", "2022-03-31", "--seed", "3", "--plant", "null"]
    assert command.main(["generate", "--out", str(tmp_path / "market"), *options]) == 0
    assert generator.sizes == [MarketSize(9, date(2022, 1, 4), date(2022, 3, 31), 3, "null")]


def test_serve_refuses_a_market_of_another_size(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["serve", "--market", str(market), "--stocks", "77"]) == 2
    assert "holds another market (stocks 5)" in capsys.readouterr().err
