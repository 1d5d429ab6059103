"""Forecasters: quantiles in order, newcomers served without a trace of personal inputs, one contract for all bodies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hallmark.build import build
from hallmark.families.forecasting.base_fitting import _fit_trust
from hallmark.families.forecasting.base_model import ForecastConfig, load_base, make_forecaster, save_base
from hallmark.families.forecasting.ensemble import EnsembleConfig, copy_members
from hallmark.families.forecasting.network import Shape
from hallmark.files import read_json

SHAPE = Shape(20, 6, 24, 5, (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95))
FORECAST = ForecastConfig(SHAPE.quantile_levels, (1,), (1,), 100, 0.5, 0.5, 2, 1, 120, 0.7)


def batch(rows: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": 20, "recent": 24, "anchor": 5, "correction": 5, "habit": 5}
    found = {k: torch.randn(rows, n, generator=generator) for k, n in sizes.items()}
    ones = torch.ones(rows)
    return {**found, "known": ones, "adapted": ones.clone(), "maturity": 0.5 * ones}


@pytest.fixture(params=[0, 1], ids=["residual_mlp", "patchtst"])
def forecaster(request: pytest.FixtureRequest, params: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    node = params["model"]["candidates"][request.param]
    body = build({**node, "patch_length": 12} if "patch_length" in node else node)  # the recent window here is short
    made = make_forecaster(body, SHAPE, FORECAST)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made.adapter_columns[-2:] = 1
    return made.eval()


def test_quantiles_never_cross(forecaster: Any) -> None:
    q = forecaster(**batch())["quantiles"]
    assert (torch.diff(q, dim=-1) > 0).all()


def test_a_newcomer_is_served_the_same_whatever_stands_in_the_personal_inputs(forecaster: Any) -> None:
    inputs = batch()
    inputs["known"] = torch.zeros(16)
    other = {**inputs, "x": inputs["x"].clone(), "correction": inputs["correction"] + 9}
    other["x"][:, -6:] += 5
    torch.testing.assert_close(forecaster(**inputs)["quantiles"], forecaster(**other)["quantiles"], rtol=0, atol=0)


def test_without_the_adapter_only_its_columns_are_silenced(forecaster: Any) -> None:
    inputs = {**batch(), "adapted": torch.zeros(16)}
    statistics, adapter = inputs["x"].clone(), inputs["x"].clone()
    statistics[:, -6] += 1
    adapter[:, -1] += 1
    base = forecaster(**inputs)["mean"]
    assert not torch.allclose(base, forecaster(**{**inputs, "x": statistics})["mean"])
    torch.testing.assert_close(base, forecaster(**{**inputs, "x": adapter})["mean"], rtol=0, atol=0)


def test_history_is_dropped_at_random_in_training_only(forecaster: Any) -> None:
    known = torch.ones(4000)
    assert forecaster.mask(known, known)[0].mean() == 1
    forecaster.train()
    dropped, adapted = forecaster.mask(known, known)
    assert 0.45 < dropped.mean() < 0.55
    assert (adapted <= dropped).all()


def test_unknown_targets_leave_the_loss_alone(forecaster: Any) -> None:
    target = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    holes = target.clone()
    holes[3] = float("nan")
    inputs = batch()
    kept = {k: torch.cat([v[:3], v[4:]]) for k, v in inputs.items()}
    expected = forecaster(**kept, target=torch.cat([target[:3], target[4:]]))["loss"]
    torch.testing.assert_close(forecaster(**inputs, target=holes)["loss"], expected)


def loss_of(out: dict[str, torch.Tensor], target: torch.Tensor) -> float:
    """Squared error and twice the pinball loss of what was forecast, by numpy."""
    error = (target - out["mean"]).detach().numpy()
    q = target[..., None].numpy() - out["quantiles"].detach().numpy()
    levels = np.asarray(SHAPE.quantile_levels)
    pinball = np.where(q >= 0, levels * q, (levels - 1) * q).mean(-1)
    return float((error**2 + 2 * pinball).mean())


def test_the_loss_is_squared_error_plus_weighted_pinball(forecaster: Any) -> None:
    target = torch.randn(16, 5, generator=torch.Generator().manual_seed(2))
    out = forecaster(**batch(), target=target)
    assert float(out["loss"].detach()) == pytest.approx(loss_of(out, target), rel=1e-4)


def test_a_saved_base_forecasts_the_same(trained: Path, task: Any, learner: Any, prepared: Any, tmp_path: Path) -> None:
    base = load_base(trained / "base")
    panel = task.split_panel(prepared).panel
    origins = panel.origins[:32]
    body = build(read_json(trained / "base" / "spec.json")["body"])
    save_base(base, tmp_path / "copy", body, learner.forecast)
    args = (panel.context(origins), panel.minute[origins].astype(np.int64), None, None)
    np.testing.assert_array_equal(base.forecast(*args)[1], load_base(tmp_path / "copy").forecast(*args)[1])


def test_a_mature_online_ridge_is_trusted_more_than_a_young_one() -> None:
    """Least squares finds both ends of a trust that grows with maturity."""
    generator = torch.Generator().manual_seed(0)
    correction = torch.randn(20_000, 2, generator=generator) * 10
    maturity = torch.rand(20_000, generator=generator)
    residual = (0.2 + 0.7 * maturity[:, None]) * correction + torch.randn(20_000, 2, generator=generator)
    young, growth = _fit_trust(residual, correction, maturity)
    torch.testing.assert_close(young, torch.full((2,), 0.2), atol=0.02, rtol=0)
    torch.testing.assert_close(growth, torch.full((2,), 0.7), atol=0.03, rtol=0)


def test_an_ensemble_of_trained_networks_forecasts_their_average(params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    bodies = [
        replace(build(node), **small)
        for node, small in zip(params["model"]["candidates"], ({}, {"patch_length": 12}), strict=False)
    ]
    members = [make_forecaster(body, SHAPE, FORECAST).eval() for body in bodies]
    for member in members:
        for parameter in member.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        member.adapter_columns[-2:] = 1
        member.horizon_scale.copy_(torch.arange(1.0, 6.0))
    ensemble = make_forecaster(EnsembleConfig(bodies, [0]), SHAPE, FORECAST).eval()
    copy_members(ensemble, members)
    found, each = ensemble(**batch()), [member(**batch()) for member in members]
    for name in ("mean", "quantiles"):
        expected = torch.stack([out[name] for out in each]).mean(0)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5)


def test_an_ensembles_loss_is_that_of_its_forecast(params: dict[str, Any]) -> None:
    """Not the mean of its members' losses: an average is better than its members are on average."""
    torch.manual_seed(0)
    bodies = [replace(build(params["model"]["candidates"][0]), width=width) for width in (8, 16)]
    model = make_forecaster(EnsembleConfig(bodies, [0]), SHAPE, FORECAST).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    target = torch.randn(16, 5, generator=torch.Generator().manual_seed(2))
    out = model(**batch(), target=target)
    assert float(out["loss"].detach()) == pytest.approx(loss_of(out, target), rel=1e-4)


@pytest.mark.parametrize(("places", "told"), [([], "lora_members"), ([2], "lora_members"), ([0, -1], "lora_members")])
def test_lora_members_must_be_members(params: dict[str, Any], places: list[int], told: str) -> None:
    bodies = [build(node) for node in params["model"]["candidates"][:2]]
    with pytest.raises(ValueError, match=told):
        EnsembleConfig(bodies, places)
