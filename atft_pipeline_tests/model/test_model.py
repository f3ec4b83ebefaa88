"""The whole model: it reads its input, all of it, nothing later than it may, and the same way each time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from atft_pipeline.model.atft_gat_fan import Block
from atft_pipeline_tests.model.blocks import LENGTH, make_block, make_model, open_gates, training_loss

SWITCHES = [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize(("adaptive_norm", "graph"), SWITCHES)
def test_t02_every_step_and_every_feature_of_the_window_moves_the_score(adaptive_norm: bool, graph: bool) -> None:
    model = open_gates(make_model(adaptive_norm=adaptive_norm, graph=graph)).eval()
    block = make_block()
    block.observed[:] = True
    block.x.requires_grad_()
    model(block).score[0].sum().backward()  # pair (0, 0): rows 0 .. LENGTH - 1 of stock 0
    assert block.x.grad is not None
    assert (block.x.grad[:LENGTH, 0] != 0).all()
    assert not block.x.grad[LENGTH:].any()


def test_t02_changing_one_value_changes_the_score() -> None:
    model, block = make_model().eval(), make_block()
    before = model(block).score[0]
    for step in (0, LENGTH // 2, LENGTH - 1):
        x = block.x.clone()
        x[step, 0, 5] += 1.0
        assert not torch.equal(model(replace(block, x=x)).score[0], before)


def test_t02_scores_differ_between_stocks_at_the_start_and_after_training_on_noise() -> None:
    model, block = make_model(), make_block()
    assert float(model.eval()(block).score.std(0).min()) > 1e-4
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=5e-4)
    for step in range(50):
        optimiser.zero_grad()
        training_loss(model, make_block(seed=step), seed=step).backward()
        optimiser.step()
    assert float(model.eval()(block).score.std(0).min()) > 1e-4


@pytest.mark.parametrize(("adaptive_norm", "graph"), SWITCHES)
def test_t12_later_rows_leave_earlier_scores_bit_equal(adaptive_norm: bool, graph: bool) -> None:
    model = open_gates(make_model(adaptive_norm=adaptive_norm, graph=graph)).eval()
    block = make_block()
    x, observed = block.x.clone(), block.observed.clone()
    x[LENGTH:] = 1e3 * torch.randn_like(x[LENGTH:])
    observed[LENGTH:] = False
    first = block.pairs[:, 0] == 0
    before, after = model(block), model(replace(block, x=x, observed=observed))
    assert torch.equal(before.score[first], after.score[first])
    assert torch.equal(before.forecast.mean[first], after.forecast.mean[first])
    assert not torch.equal(before.score[~first], after.score[~first])


def test_a_days_scores_do_not_depend_on_which_block_holds_it() -> None:
    model, block = open_gates(make_model(graph=False)).eval(), make_block()
    last = block.pairs[:, 0] == block.pairs[:, 0].max()
    start = block.x.shape[0] - LENGTH
    alone = Block(
        x=block.x[start:],
        observed=block.observed[start:],
        pairs=block.pairs[last] - torch.tensor([start, 0]),
        sector=block.sector[last],
    )
    torch.testing.assert_close(model(alone).score, model(block).score[last], atol=1e-5, rtol=1e-4)


def test_t14_inference_is_deterministic_and_dropout_is_not() -> None:
    model, block = make_model(), make_block()
    assert not torch.equal(model(block).score, model(block).score)
    model.eval()
    assert torch.equal(model(block).score, model(block).score)


def test_a_window_with_only_its_newest_row_is_finite_and_so_are_the_gradients() -> None:
    model, block = open_gates(make_model()), make_block()
    observed = torch.zeros_like(block.observed)
    lonely = replace(block, x=torch.where(observed[..., None], block.x, 0.0), observed=observed)
    loss = training_loss(model, lonely)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_unobserved_steps_get_no_attention() -> None:
    attention = make_model().temporal.attention.eval()
    steps, observed = torch.randn(LENGTH, 5, 16), torch.ones(LENGTH, 5, dtype=torch.bool)
    observed[4] = False
    before = attention(steps, observed)
    steps = steps.clone()
    steps[4] = 100.0
    assert torch.equal(attention(steps, observed), before)


def test_attention_without_keys_and_values_equals_the_textbook_form() -> None:
    torch.manual_seed(0)
    attention = make_model().temporal.attention.eval()
    steps, observed = torch.randn(LENGTH, 5, 16), torch.rand(LENGTH, 5) > 0.3
    observed[-1] = True
    query, key, value = attention.query(steps[-1:]), attention.key(steps), attention.value(steps)
    heads = [t.unflatten(-1, (attention.heads, -1)).permute(1, 2, 0, 3) for t in (query, key, value)]
    mixed = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=observed.t()[:, None, None])
    want = attention.out(mixed[:, :, 0].flatten(1))
    torch.testing.assert_close(attention(steps, observed), want, atol=1e-5, rtol=1e-5)


def test_half_precision_panels_are_accepted() -> None:
    model, block = make_model().eval(), make_block()
    half = replace(block, x=block.x.half())
    torch.testing.assert_close(model(half).score, model(replace(block, x=block.x.half().float())).score)


def test_bfloat16_autocast_stays_finite_and_close() -> None:
    model, block = open_gates(make_model()).eval(), make_block()
    full = model(block).score
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(block)
    assert low.score.dtype == torch.float32 and torch.isfinite(low.quantiles).all()
    assert float(torch.corrcoef(torch.stack([full.flatten(), low.score.flatten()]))[0, 1]) > 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sector": torch.zeros(3, dtype=torch.long)}, "one id per pair"),
        ({"observed": torch.ones(3, 3, dtype=torch.bool)}, "observed"),
        ({"pairs": torch.zeros(0, 2, dtype=torch.long)}, "no .day, stock. pair"),
        ({"edge_attr": torch.zeros(5, 2)}, "edge_attr"),
    ],
)
def test_a_malformed_block_is_refused_with_the_reason(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model()(replace(make_block(), **change))
