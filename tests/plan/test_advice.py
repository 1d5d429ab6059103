"""Advice: configurations are compared as computed; four bits, serving, and what a thousand answers cost."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from hallmark.cli import app
from hallmark.errors import ConfigError
from hallmark.families.language.causal_lm import Prefix, QLora
from hallmark.families.language.encoder import Full, Lora
from hallmark.plan.advice import Compared, Option, Platform, advise, compare, read_advice
from hallmark.plan.fake import network_of
from hallmark.plan.four_bit import FourBit, in_four_bits
from hallmark.plan.prices import Gpu, Price
from hallmark.plan.runs import PlannedRun
from hallmark.plan.serve import Load, per_thousand, read_load, replicas, serving_cost
from hallmark.plan.step import trace_step
from tests.plan.test_plan import LLAMA, adamw, planned

LORA = Lora(rank=8, alpha=16.0, dropout=0.0, targets="all-linear")
READ = date(2026, 11, 1)
GPUS = {"small": Gpu("small", 24, 100, 10, True, (0.4, 0.5)), "large": Gpu("large", 80, 1000, 100, True, (0.4, 0.5))}
PRICES = [
    Price("a", "p", "small", 1, 1.0, "", READ, "s"),
    Price("b", "p", "large", 1, 30.0, "", READ, "s"),
    Price("b", "p", "small", 4, 4.0, "", READ, "s"),
    Price("b", "p", "large", 8, 240.0, "", READ, "s"),
]
COMPARED = Compared(
    strategies=(("strategy=whole",), ("strategy=little",)),
    memory=((), ("again=true",)),
    copies=(4,),
    shards=8,
    platforms={"one": Platform("because", ("a",)), "other": Platform("why not", ("b",))},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    where = tmp_path / "config.json"
    where.write_text(json.dumps(LLAMA))
    return where


def options(sizes: dict[str, float]) -> list[Option]:
    """Compare configurations whose largest run needs so many GB."""

    def plan(settings: Sequence[str]) -> tuple[Sequence[PlannedRun], bool]:
        size = sizes[" ".join(settings)]
        if size < 0:
            raise ConfigError("a step\nof this model cannot be traced")
        return [planned(size, 1e18)], False

    return list(compare(plan, COMPARED, True, PRICES, GPUS))


SIZES = {
    "strategy=whole": 200.0,
    "strategy=whole train.distributed=fsdp2 train.processes=8": 50.0,
    "strategy=whole again=true": 190.0,
    "strategy=whole again=true train.distributed=fsdp2 train.processes=8": 40.0,
    "strategy=little": 30.0,
    "strategy=little again=true": 10.0,
}


def test_what_no_single_gpu_holds_is_shared_and_what_one_holds_is_copied() -> None:
    told = [(" ".join(option.settings), option.fits) for option in options(SIZES)]
    assert told == [
        ("strategy=whole", False),
        ("strategy=whole train.distributed=fsdp2 train.processes=8", True),
        ("strategy=whole again=true", False),
        ("strategy=whole again=true train.distributed=fsdp2 train.processes=8", True),
        ("strategy=little", True),
        ("strategy=little train.distributed=ddp train.processes=4", False),
        ("strategy=little again=true", True),
        ("strategy=little again=true train.distributed=ddp train.processes=4", True),
    ]


def test_the_cheapest_pair_is_chosen_and_time_and_money_exclude() -> None:
    found = options(SIZES)
    free = advise(found, COMPARED, None, None)
    assert free.chosen is not None
    assert (free.chosen[0].settings, free.chosen[1].gpu.name) == (("strategy=little", "again=true"), "small")
    assert free.platforms["one"] is not None
    assert free.platforms["one"][1].price.provider == "a"
    soon = advise(found, COMPARED, 2.0, None)
    assert soon.chosen is not None
    assert soon.chosen[0].settings == ("strategy=little", "again=true", "train.distributed=ddp", "train.processes=4")
    assert any("may take longer than 2 h" in reason for reason in soon.excluded)
    nothing = advise(found, COMPARED, 0.001, 0.01)
    assert nothing.chosen is None
    assert set(nothing.platforms.values()) == {None}


def test_what_cannot_be_planned_is_told_and_the_rest_is_compared() -> None:
    found = options({**SIZES, "strategy=little": -1.0})
    [refused] = [option for option in found if option.refused]
    assert refused.refused == "a step of this model cannot be traced"
    assert advise(found, COMPARED, None, None).chosen is not None


def test_a_network_that_must_be_whole_at_first_does_not_fit_because_its_shards_do() -> None:
    from hallmark.plan.plan import offers

    run = planned(10, 1e18)
    assert any(offer.fits for offer in offers([run], PRICES, GPUS))
    assert not any(offer.fits for offer in offers([replace(run, begin=int(100e9))], PRICES, GPUS))


def test_the_comparison_of_the_repository_is_read_and_a_wrong_one_is_one_line(tmp_path: Path) -> None:
    assert {"serverless", "dedicated", "enterprise"} <= set(read_advice().platforms)
    (tmp_path / "advice.yaml").write_text("platforms: {}\nstrategy: []\n")
    with pytest.raises(ConfigError, match=r"advice.yaml") as refused:
        read_advice(tmp_path / "advice.yaml")
    assert "\n" not in str(refused.value)


def test_four_bits_hold_half_a_byte_a_weight_and_compute_what_a_layer_computes_in_shape() -> None:
    layer = nn.Linear(256, 512)
    held = sum(value.numel() * value.element_size() for value in FourBit(layer).buffers())
    assert held == pytest.approx(256 * 512 / 2 + 256 * 512 / 64, rel=0.01)
    body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).requires_grad_(False)
    inputs = torch.zeros(3, 64, requires_grad=True)
    answer = in_four_bits(body)(inputs)
    assert answer.shape == (3, 8)
    answer.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.shape == (3, 64)


def test_four_bits_save_weights_and_neither_adapters_nor_the_output_layer(file: Path) -> None:
    ids = torch.zeros((1, 64), dtype=torch.int64)

    def loss(model: Any, batch: Any) -> Any:
        return model(**batch).loss

    def cost(four: bool) -> Any:
        model = LORA.apply(network_of(file, torch.float32))
        return trace_step(in_four_bits(model) if four else model, {"input_ids": ids, "labels": ids}, adamw, loss=loss)

    whole, four = cost(False), cost(True)
    assert (four.trainable, four.optimizer) == (whole.trainable, whole.optimizer)
    assert four.parameters == whole.parameters
    assert four.flop == whole.flop
    outside = 4 * 2 * LLAMA["vocab_size"] * LLAMA["hidden_size"]  # embeddings and output layer
    layers = whole.weights - outside - 4 * whole.trainable
    assert four.weights - outside - 4 * four.trainable == pytest.approx(layers / 8 * (1 + 2 / 64), rel=0.05)


def test_serving_holds_a_base_adapters_and_keys_and_values_of_every_text(file: Path) -> None:
    cost = serving_cost(file, LORA, 10, 128, 4, "bf16")
    again = serving_cost(file, LORA, 20, 256, 4, "bf16")
    heads, layers, width = LLAMA["num_key_value_heads"], LLAMA["num_hidden_layers"], 256 // 4
    assert cost.cache == 2 * layers * heads * width * 128 * 4 * 2
    assert (again.cache, again.adapters) == (2 * cost.cache, 2 * cost.adapters)
    assert again.weights == cost.weights
    assert serving_cost(file, QLora(LORA), 10, 128, 4).weights < cost.weights
    with pytest.raises(ConfigError, match=r"every person would have a whole model: choose"):
        serving_cost(file, Full(), 10, 128, 4)
    with pytest.raises(ConfigError, match="serving a learned prefix is not planned"):
        serving_cost(file, Prefix(16), 10, 128, 4)
    with pytest.raises(ConfigError, match=r"Lora does not fit .*: choose -S strategy@model\.strategy=lora_all"):
        serving_cost(file, Lora(rank=8, alpha=16.0, dropout=0.0, targets=("query",)), 10, 128, 4)
    file.write_text(json.dumps({**LLAMA, "max_position_embeddings": 64}))
    with pytest.raises(ConfigError, match=r"--context 128: .* has 64 positions"):
        serving_cost(file, LORA, 10, 128, 4)
    assert [replica.fits for replica in replicas(cost, PRICES, GPUS)] == [True, True]
    old = {**GPUS, "small": replace(GPUS["small"], bf16=False)}
    assert [replica.gpu.name for replica in replicas(cost, PRICES, old)] == ["large"]


def test_a_thousand_answers_cost_what_the_replicas_of_the_measured_load_cost(tmp_path: Path) -> None:
    loads = [
        {"bundle": "b", "machine": "m", "clients": 1, "per_second": 50.0, "p95_ms": 20.0},
        {"bundle": "b", "machine": "m", "clients": 16, "per_second": 100.0, "p95_ms": 200.0},
    ]
    file = tmp_path / "served.json"
    with pytest.raises(ConfigError, match=r"served.json is not there: .python -m benchmarks.service_load"):
        read_load(None, file)
    file.write_text(json.dumps(loads))
    assert read_load(None, file).per_second == 100
    for damaged in ("[]", "{", '[{"per_second": 1}]', json.dumps([{**loads[0], "per_second": 0}])):
        (tmp_path / "damaged.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"damaged\.json is damaged .*: measure again"):
            read_load(None, tmp_path / "damaged.json")
    load = read_load(25.0, file)
    assert load == Load("b", "m", 1, 50.0, 20.0)
    with pytest.raises(ConfigError, match=r"--p95 5: no measured load answers so fast; the fastest took 20.0 ms"):
        read_load(5.0, file)
    count, usd = per_thousand(load, 120.0, 1.8)
    assert count == 3
    assert usd == pytest.approx(1000 * 3 * 1.8 / (3600 * 120))


def test_the_commands_advise_and_write_a_page(file: Path, tmp_path: Path) -> None:
    advised = CliRunner().invoke(app, ["plan", "advise", "-S", "experiment=text", "--model", str(file), "--json"])
    assert advised.exit_code == 0, advised.output
    found = json.loads(advised.stdout)
    assert {"experiment=text", "strategy@model.strategy=full"} <= set(found["chosen"]["settings"])
    assert len(found["options"]) == 3 * 2 * 3
    serving = ["plan", "serve", "-S", "experiment=text", "-S", "strategy@model.strategy=lora_all", "--model", str(file)]
    served = CliRunner().invoke(app, serving)
    assert served.exit_code == 0, served.output
    assert "Machines that hold it" in served.stdout
    fixed = ["plan", "advise", "-S", "experiment=text", "-S", "train.processes=8", "--model", str(file)]
    refused = CliRunner().invoke(app, fixed)
    assert isinstance(refused.exception, ConfigError)
    assert "train.processes=8: the advice compares how many processes train" in str(refused.exception)
    page = tmp_path / "plan.html"
    arguments = ["plan", "-S", "experiment=text", "--model", str(file), "--json", "--page", str(page)]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["task"] == "text"
    assert "Machines, the cheapest first" in page.read_text()
    assert "http" not in page.read_text().replace("http://www.w3.org", "")
