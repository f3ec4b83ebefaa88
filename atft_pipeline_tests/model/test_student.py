"""The optional Student-t heads: their formula, their limits, and that they are what they say."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from atft_pipeline.model.student import FEWEST_FREEDOM, MOST_FREEDOM, SMALLEST_SCALE, StudentHeads, student_nll
from atft_pipeline_tests.model.blocks import make_block, make_model


def test_t22_freedom_in_training_equals_freedom_in_evaluation() -> None:
    model, block = make_model(student_t=True, dropout=0.0, edge_dropout=0.0), make_block()
    model.graph.dropout = 0.0
    with torch.no_grad():
        trained = model.train()(block).student
        evaluated = model.eval().score_each_date(block).student
    assert trained is not None and evaluated is not None
    torch.testing.assert_close(trained, evaluated, atol=1e-5, rtol=1e-5)
    low = torch.autocast("cpu", dtype=torch.bfloat16)
    with low, torch.no_grad():
        assert model(block).student.dtype == torch.float32


def test_scale_and_freedom_keep_their_limits() -> None:
    heads = StudentHeads(4, 2)
    found = torch.cat([heads(torch.full((1, 4), value)) for value in (-1e6, 0.0, 1e6)])
    assert found.shape == (3, 2, 3) and torch.isfinite(found).all()
    assert float(found[..., 1].min()) >= SMALLEST_SCALE
    assert float(found[..., 2].min()) >= FEWEST_FREEDOM and float(found[..., 2].max()) <= MOST_FREEDOM


def test_the_likelihood_is_that_of_scipy_and_stays_in_float32_under_autocast() -> None:
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3
    parameters = torch.tensor([0.3, 0.7, 4.5]).expand(50, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = student_nll(parameters, y)
    np.testing.assert_allclose(found.numpy(), -stats.t.logpdf(y.numpy(), 4.5, 0.3, 0.7), rtol=1e-5)


def test_t22_heavy_tails_are_recognised_and_thin_ones_too() -> None:
    """The heads' bias alone, fitted to samples of two known distributions."""
    rng = np.random.default_rng(1)
    y = torch.from_numpy(np.stack([rng.standard_t(4, 20_000), rng.standard_normal(20_000)], 1).astype(np.float32))
    heads = StudentHeads(1, 2)
    optimiser, nothing = torch.optim.Adam(heads.parameters(), lr=0.2), torch.zeros(1, 1)
    for _ in range(150):
        optimiser.zero_grad()
        student_nll(heads(nothing).expand(len(y), 2, 3), y).mean().backward()
        optimiser.step()
    (_, heavy_scale, heavy), (_, thin_scale, thin) = heads(nothing)[0].tolist()
    assert 3.4 < heavy < 4.8 and 0.9 < heavy_scale < 1.1
    assert thin > 10 and 0.9 < thin_scale < 1.1


def test_without_them_the_model_has_the_same_parameters_and_numbers_as_before() -> None:
    block = make_block()
    plain, with_heads = make_model().eval(), make_model(student_t=True).eval()
    extra = set(with_heads.state_dict()) - set(plain.state_dict())
    assert extra == {"student.out.weight", "student.out.bias"}
    assert plain(block).student is None
    assert torch.equal(plain(block).score, with_heads(block).score)
