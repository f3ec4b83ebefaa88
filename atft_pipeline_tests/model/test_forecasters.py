"""The output-side forecasters: what they aim at, and that they can hit it."""

from __future__ import annotations

import torch

from atft_pipeline.model.forecasters import ReturnForecasters, targets_from_labels
from atft_pipeline_tests.model.blocks import make_block, make_config, make_model


def test_targets_add_up_to_the_labels() -> None:
    y = torch.randn(50, 6)
    main, rest = targets_from_labels(y, make_config())
    torch.testing.assert_close(main + rest, y)
    assert float(main.std()) > 0.05 and float(rest.std()) > 0.05


def test_a_steady_drift_is_all_level_and_no_oscillation() -> None:
    config = make_config()
    y = torch.tensor(config.horizons).sqrt()[None].repeat(3, 1)  # the same return every day
    main, rest = targets_from_labels(y, config)
    torch.testing.assert_close(main, torch.zeros_like(main), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest, y, atol=1e-5, rtol=0)


def test_incomplete_labels_contribute_nothing() -> None:
    model, block = make_model(), make_block()
    forecast = model.forecast(block)
    y = torch.randn(len(block.pairs), 6)
    mask = torch.rand(y.shape) > 0.1
    holes = torch.where(mask, y, float("nan"))
    whole = mask.all(-1)
    kept = type(forecast)(forecast.main[whole], forecast.mean[whole], forecast.scale[whole])
    want = model.auxiliary_loss(kept, y[whole], mask[whole])
    torch.testing.assert_close(model.auxiliary_loss(forecast, holes, mask), want)
    nothing = model.auxiliary_loss(forecast, holes, torch.zeros_like(mask))
    assert float(nothing.detach()) == 0.0 and nothing.requires_grad


def test_forecasts_are_neutral_while_adaptive_norm_is_off() -> None:
    output = make_model(adaptive_norm=False)(make_block())
    assert torch.equal(output.point_forecast(), output.score)


def test_forecasters_learn_level_and_spread() -> None:
    """Labels drawn from a mean and a spread that the window shows: both are found."""
    torch.manual_seed(0)
    forecasters = ReturnForecasters(make_config(forecaster_width=16))
    optimiser = torch.optim.Adam(forecasters.parameters(), lr=3e-3)
    root = torch.tensor(make_config().horizons).sqrt()
    for _ in range(300):
        level, spread = torch.randn(256, 1), torch.rand(256, 1) + 0.2
        r = level + spread * torch.randn(256, 20)
        y = 0.5 * level * root + spread * torch.randn(256, 1) * root  # a drift: no oscillating part
        optimiser.zero_grad()
        forecasters.loss(forecasters(r), y, torch.ones_like(y)).backward()
        optimiser.step()
    forecast = forecasters(r)
    both = [(forecast.mean[:, 0], level[:, 0]), (forecast.scale[:, 0], spread[:, 0])]
    for got, want in both:
        assert float(torch.corrcoef(torch.stack([got.detach(), want]))[0, 1]) > 0.6
    assert float(forecast.main.detach().abs().mean()) < float(forecast.mean.detach().abs().mean())
