"""Training under trouble: no memory, no disk, a hung or dead worker; and the data-path modes, which must agree."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atft_pipeline.model.atft_gat_fan import Block, Output
from atft_pipeline.training import checkpoint, disk, files, monitor
from atft_pipeline.training.batches import Batch, BlockSource, Days
from atft_pipeline.training.config import TrainingConfig
from atft_pipeline.training.engine import Trainer, build_model
from atft_pipeline.training.faults import TrainingFault
from atft_pipeline.training.feed import choose_mode, prepare_block
from atft_pipeline.training.losses import LossFunction
from atft_pipeline.training.machine import Sampler
from atft_pipeline.training.memory import rows_at_once
from atft_pipeline.training.panel_data import load_panel
from atft_pipeline.training.runs import open_run
from atft_pipeline.training.step import StepGradient
from atft_pipeline.training.supervisor import run_training
from atft_pipeline.training.targets import Targets
from atft_pipeline_tests.training.conftest import Lines, make_trainer, tiny_config

SHORT: dict[str, Any] = {"epochs": (1, 1, 1, 1, 0), "dates_per_epoch": 24, "mc_samples": 0}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train"]["total"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def hang_at_the_third_block(source: BlockSource, targets: Targets, days: Days, with_graph: bool) -> Batch | None:
    """A worker that sleeps for ever when it has prepared two blocks."""
    done = getattr(hang_at_the_third_block, "done", 0)
    hang_at_the_third_block.done = done + 1  # type: ignore[attr-defined]
    if done == 2:
        time.sleep(3600)
    return prepare_block(source, targets, days, with_graph)


def die_at_the_third_block(source: BlockSource, targets: Targets, days: Days, with_graph: bool) -> Batch | None:
    done = getattr(die_at_the_third_block, "done", 0)
    die_at_the_third_block.done = done + 1  # type: ignore[attr-defined]
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare_block(source, targets, days, with_graph)


@pytest.fixture(scope="module")
def safe(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses per epoch of the mode that has no moving parts."""
    config = tiny_config(**SHORT, mode="safe")
    return losses(run_training(tiny, tmp_path_factory.mktemp("safe"), config, Lines()).path)


@pytest.mark.parametrize("mode", ["resident", "mapped", "workers"])
def test_t39_all_modes_give_the_losses_of_safe_mode(tiny: Path, tmp_path: Path, safe: list[float], mode: str) -> None:
    config = tiny_config(**SHORT, mode=mode)
    folder = run_training(tiny, tmp_path, config, Lines())
    assert folder.read_summary()["mode"] == {"name": mode, "reason": "as set"}
    np.testing.assert_allclose(losses(folder.path), safe, rtol=1e-6)
    assert not multiprocessing.active_children()


def test_auto_says_which_mode_it_took_and_why() -> None:
    cpu = torch.device("cpu")
    assert choose_mode("auto", 1_000, cpu, 10_000).name == "resident"
    mapped = choose_mode("auto", 9_000_000_000, cpu, 10_000_000_000)
    assert mapped.name == "mapped" and "9.00 GB of 10.0 GB" in mapped.reason
    assert choose_mode("safe", 1, cpu, 10).name == "safe"


@pytest.mark.parametrize(
    ("prepare", "said"), [(hang_at_the_third_block, "gave nothing for"), (die_at_the_third_block, "ended")]
)
def test_t39_a_lost_worker_is_replaced_by_this_process_at_the_same_step(
    tiny: Path, tmp_path: Path, safe: list[float], prepare: Any, said: str
) -> None:
    config, panel, reporter = (
        tiny_config(**SHORT, mode="workers", workers=2, worker_timeout=3.0),
        load_panel(tiny),
        Lines(),
    )
    plain = make_trainer(tiny, tmp_path)
    trainer = Trainer(
        config,
        panel,
        open_run(tmp_path, panel.hash, config),
        reporter,
        plain.heartbeat,
        plain.stop,
        build_model,
        prepare,
    )
    trainer.train()
    assert trainer.feed.mode.name == "safe" and any(said in line for line in reporter.lines)
    (event,) = trainer.feed.events
    if prepare is hang_at_the_third_block:
        assert "hang_at_the_third_block" in event["stacks"]
    np.testing.assert_allclose([r["train"]["total"] for r in trainer.history], safe, rtol=1e-6)
    assert not multiprocessing.active_children()


def test_t39_a_slow_worker_is_given_twenty_times_its_usual_pace(tiny: Path, tmp_path: Path) -> None:
    feed = make_trainer(tiny, tmp_path, worker_timeout=3.0).feed
    assert feed.patience() == 3.0
    feed._paces = [0.01, 0.02, 9.0]
    assert feed.patience() == 3.0
    feed._paces = [1.0, 2.0, 9.0]
    assert feed.patience() == 40.0


def test_t40_workers_start_from_an_entry_without_a_main_guard_on_a_host_that_uses_polars(
    tiny: Path, tmp_path: Path
) -> None:
    """Spawned, beside Polars' threads; all processes are gone at the end."""
    settings = {**SHORT, "epochs": (3, 0, 0, 0, 0), "mode": "workers", "workers": 2}
    code = (
        "import polars; polars.DataFrame({'a': range(9)}).lazy().select(polars.col('a').sum()).collect()\n"
        "import multiprocessing, sys, pathlib\n"
        "from atft_pipeline.training.supervisor import run_training\n"
        "from atft_pipeline_tests.training.conftest import Lines, tiny_config\n"
        f"folder = run_training(pathlib.Path({str(tiny)!r}), pathlib.Path({str(tmp_path)!r}), "
        f"tiny_config(**{settings!r}), Lines())\n"
        "print(len((folder.path / 'metrics.jsonl').read_text().splitlines()), len(multiprocessing.active_children()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "0"]


def test_a_worker_s_own_error_is_not_taken_for_a_hang(tiny: Path, tmp_path: Path) -> None:
    config, panel = tiny_config(**SHORT, mode="workers", workers=1), load_panel(tiny)
    plain = make_trainer(tiny, tmp_path)
    trainer = Trainer(
        config, panel, open_run(tmp_path, panel.hash, config), Lines(), plain.heartbeat, plain.stop, build_model, broken
    )
    with pytest.raises(TrainingFault, match="the panel burnt down"):
        trainer.train()
    assert not multiprocessing.active_children()


def broken(source: BlockSource, targets: Targets, days: Days, with_graph: bool) -> Batch | None:
    raise ValueError("the panel burnt down")


# Memory


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_t36_a_step_in_pieces_has_the_gradient_of_the_whole_step(tiny: Path, tmp_path: Path, phase: int) -> None:
    """Dropout, the graph, the Sharpe term over all dates and the forecasters' own loss included."""
    trainer = make_trainer(tiny, tmp_path)
    declared = trainer.phases[phase]
    trainer.model.set_switches(adaptive_norm=declared.adaptive_norm, graph=declared.graph)
    trainer.model.train()
    for stage in declared.stages:
        batch = next(
            iter(trainer.source.batches(trainer.train_blocks[:1], with_graph=declared.graph, targets=trainer.targets))
        )
        loss = LossFunction(stage.weights, trainer.panel.horizons, trainer.model.config.quantiles)
        found = []
        for pieces in (1, 2, 4, 8):
            torch.manual_seed(5)
            for module in trainer.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0  # the pieces draw their masks in another order than the whole
            trainer.model.graph.dropout = trainer.model.graph.edge_dropout = 0.0
            trainer.model.temporal.lstm.dropout = 0.0
            trainer.model.zero_grad(set_to_none=True)
            gradient = StepGradient(trainer.model, trainer.autocast, trainer.device)
            if pieces == 1:
                judged = gradient.judge(stage, batch, loss)
                judged.loss.total.backward()
            else:
                judged, backward = gradient.judge_in_pieces(stage, batch, loss, pieces)
                backward.run(judged.loss.total)
            gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
            found.append((float(judged.loss.total.detach()), judged.edges, gradients))
        whole = found[0]
        for total, edges, gradients in found[1:]:
            assert total == pytest.approx(whole[0], rel=1e-5) and edges == whole[1]
            for name, value in gradients.items():
                expected = whole[2].get(name, torch.zeros_like(value))
                scale = float(expected.abs().max()) + 1e-6
                torch.testing.assert_close(value, expected, atol=1e-4 * scale + 1e-7, rtol=1e-3)


def test_t36_dropout_repeats_itself_between_the_two_runs_of_a_piece(tiny: Path, tmp_path: Path) -> None:
    """Without the stored random state the second forward would score other numbers than the loss saw."""
    trainer = make_trainer(tiny, tmp_path)
    trainer.model.train()
    seen: list[torch.Tensor] = []
    forward = trainer.model.forward

    def watched(block: Block) -> Output:
        output = forward(block)
        seen.append(output.score.detach().clone())
        return output

    trainer.model.forward = watched  # type: ignore[method-assign]
    stage = trainer.phases[0].stages[0]
    loss = LossFunction(stage.weights, trainer.panel.horizons, trainer.model.config.quantiles)
    batch = next(iter(trainer.source.batches(trainer.train_blocks[:1], with_graph=False, targets=trainer.targets)))
    judged, backward = trainer.gradient.judge_in_pieces(stage, batch, loss, 2)
    backward.run(judged.loss.total)
    first, second, again_first, again_second = seen
    for once, again in ((first, again_first), (second, again_second)):
        torch.testing.assert_close(once, again, atol=1e-6, rtol=0)
    assert float((trainer.model(batch.block).score - torch.cat([first, second])).abs().max()) > 1e-4


def test_t36_out_of_memory_goes_on_in_smaller_pieces_and_the_next_run_starts_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device has room for half a step's windows, after the chunks were halved twice."""

    def small_device(config: Any, panel: Any) -> Any:
        model = build_model(config, panel)
        forward = model.forward

        def limited(block: Block) -> Output:
            if torch.is_grad_enabled() and len(block.pairs) > 180:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return forward(block)

        monkeypatch.setattr(model, "forward", limited)
        return model

    def train(**changes: Any) -> Trainer:
        config, panel, reporter = tiny_config(**{**SHORT, **changes}), load_panel(tiny), Lines()
        plain = make_trainer(tiny, tmp_path)
        trainer = Trainer(
            config,
            panel,
            open_run(tmp_path / "runs", panel.hash, config),
            reporter,
            plain.heartbeat,
            plain.stop,
            small_device,
        )
        trainer.train()
        trainer.lines = reporter.lines  # type: ignore[attr-defined]
        return trainer

    first = train()
    assert first.ladder.footing.pieces == 2 and len(first.ladder.events) == 3
    assert any("out of memory: going on" in line for line in first.lines)  # type: ignore[attr-defined]
    # As many steps over the same dates as without trouble: nothing started again, no step became smaller.
    untroubled = make_trainer(tiny, tmp_path / "untroubled", **SHORT)
    untroubled.train()

    def counts(trainer: Trainer) -> list[tuple[int, int]]:
        return [(r["throughput"]["steps"], r["throughput"]["dates"]) for r in trainer.history]

    assert counts(first) == counts(untroubled)
    second = train(seed=8)
    assert second.ladder.footing == first.ladder.footing and not second.ladder.events


def test_t36_without_room_for_a_single_date_the_run_says_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny, tmp_path, **SHORT)

    def never(block: Block) -> Output:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(trainer.model, "forward", never)
    with pytest.raises(TrainingFault, match="one date at a time.*smaller preset"):
        trainer.train()


def test_t36_a_run_killed_for_its_memory_begins_a_rung_lower(tiny: Path, tmp_path: Path) -> None:
    usual = make_trainer(tiny, tmp_path).ladder.footing
    lower = make_trainer(tiny, tmp_path, rungs_down=1)
    assert lower.ladder.footing == usual.lower(0) and len(lower.ladder.events) == 1
    assert lower.model.selection.row_chunk == lower.ladder.footing.row_chunk < usual.row_chunk
    assert make_trainer(tiny, tmp_path).ladder.footing == lower.ladder.footing  # remembered


def test_rows_at_once_suit_the_device_unless_they_are_given() -> None:
    small, cpu, gpu = TrainingConfig.resolve("small", env={}), torch.device("cpu"), torch.device("cuda")
    assert rows_at_once(small, 300, cpu) == 64 and rows_at_once(small, 300, gpu) == 8192
    assert rows_at_once(small, 100_000, cpu) == 16
    assert rows_at_once(tiny_config(), 300, gpu) == tiny_config().row_chunk


# Disk


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], times: int = 10**6) -> list[str]:
    """Every write of a file with one of these names fails as on a full disk, the first `times` times."""
    failed: list[str] = []
    real = files.write_bytes

    def full(path: Path, data: Any) -> None:
        if path.name in names and len(failed) < times:
            failed.append(path.name)
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
        real(path, data)

    for module in (files, checkpoint):
        monkeypatch.setattr(module, "write_bytes", full)
    monkeypatch.setattr(monitor, "write_bytes", full)
    return failed


def test_t38_a_full_disk_costs_the_reports_but_not_the_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = fill_the_disk(monkeypatch, ("latest_metrics.json", "metrics.jsonl", "heartbeat.json"))
    reporter = Lines()
    folder = run_training(tiny, tmp_path, tiny_config(**SHORT), reporter)
    assert failed and folder.complete
    assert [e["file"] for e in folder.read_summary()["events"]] == ["latest_metrics.json"]
    assert sum("latest_metrics.json is not written" in line for line in reporter.lines) == 1


def test_t38_what_only_speeds_up_the_next_run_may_find_no_room(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached graphs and the memory's record, also where one is written while memory is short."""
    trainer = make_trainer(tiny, tmp_path)
    monkeypatch.setattr(files, "write_bytes", lambda path, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert len(trainer.graphs.graph(60).source) and len(trainer.graphs.graph(80).source)
    assert [event["file"] for event in trainer.graphs.events] == ["graphs"]
    assert "out of memory" in trainer.ladder.climb_down(MemoryError("no"), {"phase": 2})
    assert [event["event"] for event in trainer.ladder.events] == ["out_of_memory", "disk_full"]
    monkeypatch.setattr(files, "write_bytes", lambda path, data: (_ for _ in ()).throw(PermissionError("not yours")))
    with pytest.raises(PermissionError):
        trainer.graphs.graph(70)


def test_t38_room_is_made_for_the_best_weights(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = fill_the_disk(monkeypatch, ("best.pt",), times=1)
    folder = run_training(tiny, tmp_path, tiny_config(**SHORT), Lines())
    assert failed == ["best.pt"] and folder.complete
    (event,) = folder.read_summary()["events"]
    assert event["file"] == "best.pt"


def test_t38_if_nothing_helps_the_earlier_best_stays_and_a_report_says_why(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny, tmp_path, **SHORT)
    trainer.phases = trainer.phases[:1]
    trainer.train()
    best = trainer.folder.checkpoint(0, "best")
    before = best.read_bytes()
    fill_the_disk(monkeypatch, ("best.pt",))
    again = tiny_config(**SHORT)
    with pytest.raises(OSError, match="quota"):
        run_training(tiny, tmp_path, again, Lines())
    assert best.read_bytes() == before
    report = json.loads((best.parent.parent.parent / "failure_report.json").read_text())
    assert report["type"] == "OSError" and "quota" in report["message"]


def test_t38_a_disk_without_room_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingFault, match="MB free, a run needs"):
        disk.require_space(tmp_path, 10**15, 0)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EDQUOT, "Disk quota exceeded")))
    with pytest.raises(TrainingFault, match="probe of 4 MB"):
        disk.require_space(tmp_path, 1, 0)
    assert not list(tmp_path.iterdir())


# Precision


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_t37_the_products_run_in_the_declared_precision_and_the_loss_in_fp32(
    tiny: Path, tmp_path: Path, precision: str, wanted: torch.dtype
) -> None:
    trainer = make_trainer(tiny, tmp_path, precision=precision, **SHORT)
    seen: dict[str, set[torch.dtype]] = {"product": set()}
    products = [m for m in trainer.model.modules() if isinstance(m, torch.nn.Linear)]
    for module in products:
        module.register_forward_hook(lambda module, given, output: seen["product"].add(output.dtype))
    judge = trainer.gradient._loss

    def watched(stage: Any, batch: Any, leaves: Any, loss: Any) -> Any:
        found = judge(stage, batch, leaves, loss)
        assert found.total.dtype == torch.float32 and all(t.dtype == torch.float32 for t in found.terms.values())
        return found

    trainer.gradient._loss = watched  # type: ignore[method-assign]
    trainer.phases = trainer.phases[:1]
    trainer.train()
    assert seen["product"] == {wanted}
    assert torch.float16 not in seen["product"]


# Monte-Carlo dropout


def test_t14_mc_dropout_changes_no_metric_and_has_a_spread(tiny: Path, tmp_path: Path) -> None:
    without = run_training(tiny, tmp_path / "a", tiny_config(**SHORT), Lines())
    with_mc = run_training(tiny, tmp_path / "b", tiny_config(**{**SHORT, "mc_samples": 20, "mc_dates": 2}), Lines())
    one, other = without.read_summary(), with_mc.read_summary()
    assert one["evaluation"] == other["evaluation"]
    np.testing.assert_array_equal(np.load(without.scores), np.load(with_mc.scores))
    mean, spread = np.load(with_mc.uncertainty)
    scores = np.load(with_mc.scores)[-2:]
    assert mean.shape == spread.shape == scores.shape
    np.testing.assert_array_equal(np.isfinite(spread), np.isfinite(scores))
    assert np.nanmin(spread) > 0 and not without.uncertainty.exists()
    assert np.corrcoef(mean[np.isfinite(mean)], scores[np.isfinite(mean)])[0, 1] > 0.7


def test_mc_dropout_refuses_a_handful_of_samples(tiny: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, mc_samples=5)
    with pytest.raises(ValueError, match="at least 20"):
        trainer.uncertainty()


# The machine


def test_an_idle_gpu_is_noticed_after_five_minutes_and_summarised(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path)
    assert sampler.gpu_summary() is None and not sampler.is_idle()
    sampler.gpu = [(10.0 * n, 20.0) for n in range(20)]
    assert not sampler.is_idle()
    sampler.gpu = [(10.0 * n, 20.0 if n > 2 else 100.0) for n in range(40)]
    assert sampler.is_idle()
    assert sampler.gpu_since(15.0) == 22.1 and sampler.gpu_since(1e9) is None
    assert sampler.gpu_summary() == {"mean": 26.0, "median": 20.0, "p10": 20.0}
    sampler.gpu = [(10.0 * n, 90.0) for n in range(40)]
    assert not sampler.is_idle()


def test_a_sample_tells_memory_processor_and_disk(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        sum(range(1000))
    sample = sampler.sample()
    assert sample["rss_mb"] > 50 and sample["disk_free_gb"] > 0 and sample["cpu_percent"] > 10
