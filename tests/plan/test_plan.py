"""Plans: memory read off the training step, dated prices, the cheapest machine that fits, and the review."""

import json
import math
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
from hallmark.families.language.encoder import Full, Lora
from hallmark.learn.processes import run
from hallmark.learn.trainer import Run, quiet
from hallmark.plan.fake import network_of
from hallmark.plan.live import LiveBytes
from hallmark.plan.measure import measure
from hallmark.plan.plan import choose, offers
from hallmark.plan.prices import COLUMNS, Gpu, Price, import_prices, read_gpus, read_prices
from hallmark.plan.review import keep_plan, review
from hallmark.plan.runs import PlannedRun, trace
from hallmark.plan.step import DataDependent, StepCost, trace_step
from tests.learn.test_distributed import examples, network, settings

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    where = tmp_path / "config.json"
    where.write_text(json.dumps(LLAMA))
    return where


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


def test_live_bytes_follow_storages() -> None:
    with LiveBytes(block=1) as counter:
        first = torch.zeros(1000)
        view = first[:10]
        second = first + 1
        del first
        assert counter.live["activations"] == 8000, "a view keeps the storage alive"
        del view
        assert counter.live["activations"] == 4000
        counter.assign([second], "weights")
        assert (counter.live["weights"], counter.live["activations"]) == (4000, 0)
    assert counter.peak_bytes == 8000


def test_a_step_is_counted_like_an_oracle_by_hand() -> None:
    """One linear layer without activations to speak of: weights, gradients and two moments."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(1000, 1000, bias=False)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.body(x).sum()}

    cost = trace_step(One(), {"x": torch.zeros(1, 1000)}, adamw)
    size = 4 * 1000 * 1000
    assert cost.weights == pytest.approx(size, abs=2048)
    assert cost.optimizer == pytest.approx(2 * size, abs=2048)
    assert cost.gradients + cost.activations == pytest.approx(size, rel=0.02)
    assert (cost.parameters, cost.trainable, cost.flop) == (10**6, 10**6, 2 * 2 * 1000 * 1000)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_trace_is_what_the_same_step_takes_when_it_computes(strategy: str) -> None:
    _, make = examples(1)
    costs = [
        trace_step(network(strategy), make(list(range(16))), adamw, clip=1.0, accumulation=2, compute=compute)
        for compute in (False, True)
    ]
    assert costs[0].peak == pytest.approx(costs[1].peak, rel=0.01)
    assert costs[0].trainable == costs[1].trainable
    assert costs[0].flop == costs[1].flop


def test_a_model_of_any_size_is_planned_without_its_weights(file: Path) -> None:
    file.write_text(json.dumps({**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256}))
    model = Lora(rank=16, alpha=32.0, dropout=0.0, targets="all-linear").apply(network_of(file, torch.bfloat16))
    ids = torch.zeros((1, 128), dtype=torch.int64)

    def loss(model: Any, batch: Any) -> Any:
        return model(**batch).loss

    cost = trace_step(model, {"input_ids": ids, "labels": ids}, adamw, loss=loss)
    assert cost.parameters > 1e9
    assert cost.weights == pytest.approx(2 * cost.parameters, rel=0.02)
    assert cost.trainable < 1e7


def test_recomputed_activations_need_less_memory_and_more_operations(file: Path) -> None:
    _, make = examples(1)
    plain = trace("plain", Run(network("full"), (64, make), (0, make), settings("none")))
    again = trace("again", Run(network("full"), (64, make), (0, make), settings("none", gradient_checkpointing=True)))
    assert again.cost.activations < plain.cost.activations
    assert again.cost.flop > plain.cost.flop


def test_code_that_branches_on_numbers_is_computed(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.body(x[: int(x.abs().sum()) + 1]).sum()}

    with pytest.raises(DataDependent):
        trace_step(Branching(), {"x": torch.ones(8, 4)}, adamw)

    def make(rows: list[int]) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(len(rows), 4)}

    assert trace("branching", Run(Branching(), (64, make), (8, make), settings("none"))).cost.peak > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no configuration of a model"),
        ('{"hidden_size": 3}', "it names a model_type"),
        ('{"model_type": "llama", "auto_map": {}}', "needs code of its repository"),
        ('{"model_type": "vit"}', "no causal language model can be built of model_type 'vit' without its weights"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        network_of(file, torch.float32)
    assert "\n" not in str(error.value)


def table(tmp_path: Path, **changes: str) -> Path:
    row = dict(
        zip(COLUMNS, ["lender", "pod", "H100", "1", "2.5", "on-demand", "", "2026-11-01", "its page", ""], strict=True)
    )
    file = tmp_path / "prices.csv"
    file.write_text(",".join(COLUMNS) + "\n" + ",".join({**row, **changes}.values()) + "\n")
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"usd_per_hour": "-1"}, r"line 2: usd_per_hour=-1 for gpus=1: both must be above zero"),
        ({"usd_per_hour": "cheap"}, "must be numbers"),
        ({"date": ""}, "date='': give the day it was read"),
        ({"source": " "}, "source is empty"),
        ({"date": "2999-01-01"}, "lies in the future"),
        ({"gpu": "H1000"}, r"gpu='H1000' is not in conf/plan/gpus.yaml: known are .*H100"),
    ],
)
def test_a_price_without_sense_date_or_source_changes_nothing(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    to = tmp_path / "kept.csv"
    to.write_text("before")
    with pytest.raises(ConfigError, match=message):
        import_prices(table(tmp_path, **changes), to)
    assert to.read_text() == "before"
    assert import_prices(table(tmp_path), to) == 1
    assert len(read_prices(to)) == 1


def test_every_price_of_the_repository_has_a_gpu_a_date_and_a_source() -> None:
    prices, gpus = read_prices(), read_gpus()
    assert len(prices) > 50
    assert {price.gpu for price in prices} <= set(gpus)


def planned(peak_gb: float, flop: float, trainable: int = 100) -> PlannedRun:
    cost = StepCost(int(peak_gb * 1e9), 0, 0, 0, 0, 100, trainable, 0)
    return PlannedRun("n", cost, 1, 1, 1, flop, settings("none"))


def test_the_cheapest_machine_that_fits_is_chosen_and_the_others_say_why_not() -> None:
    gpus = {
        "small": Gpu("small", 24, 100, 10, True, (0.4, 0.5)),
        "large": Gpu("large", 80, 1000, 100, True, (0.4, 0.5)),
    }
    read = date(2026, 11, 1)
    prices = [Price("a", "p", "small", 1, 1.0, "", read, "s"), Price("b", "p", "large", 1, 3.0, "", read, "s")]
    found = offers([planned(10, 1e18)], prices, gpus)
    assert [offer.fits for offer in found] == [True, True]
    by_name = {offer.gpu.name: offer for offer in found}
    assert by_name["small"].hours == pytest.approx((1e18 / 1e14 / 0.5 / 3600, 1e18 / 1e14 / 0.4 / 3600))
    chosen, _ = choose(found, None, None)
    assert chosen is by_name["large"], "ten times as fast for three times the price"
    chosen, excluded = choose(offers([planned(40, 1e18)], prices, gpus), None, None)
    assert chosen is not None
    assert chosen.gpu.name == "large"
    assert excluded == ["1 of 2 offers do not hold the largest run in memory"]
    chosen, excluded = choose(found, 0.5, 0.1)
    assert chosen is None
    assert excluded == ["2 of 2 offers may take longer than 0.5 h", "2 of 2 offers may cost more than 0.1 USD"]


def test_small_steps_of_adapters_may_be_slower_than_full_training() -> None:
    gpus = {"g": Gpu("g", 80, 100, 10, True, (0.4, 0.5))}
    prices = [Price("a", "p", "g", 1, 1.0, "", date(2026, 11, 1), "s")]
    full, lora = (offers([planned(1, 1e18, learns)], prices, gpus)[0] for learns in (100, 1))
    assert lora.hours[1] > full.hours[1]
    assert lora.hours[0] == full.hours[0]


def test_the_time_of_a_run_is_told_from_twenty_steps(tmp_path: Path) -> None:
    quiet()
    _, make = examples(1)
    job = Run(network("full"), (64, make), (64, make), settings("none"))
    plan = trace("n", job)
    job = replace(job, model=network("full"))
    step, evaluation = measure(job, plan)
    assert 0 < step < 1
    assert 0 < evaluation < 10


def test_a_review_sets_what_was_planned_beside_what_was_taken(tmp_path: Path) -> None:
    plans, spent = tmp_path / "plans.jsonl", tmp_path / "spent.jsonl"
    keep_plan("text", [planned(1, 1e12)], {"n": (0.5, 2.0)}, plans)
    taken = {
        "at": "2099-01-01T00:00:00+00:00",
        "task": "text",
        "candidate": "n",
        "machine": "here",
        "steps": 8,
        "peak_bytes": 2e9,
        "seconds": 10.0,
        "flop": 3e12,
        "joules": None,
        "parameters": 100,
        "trainable": 100,
        "batch_size": settings("none").batch_size,
        "gradient_accumulation": 1,
    }
    spent.write_text(json.dumps(taken) + "\n" + json.dumps({**taken, "trainable": 7}) + "\n")
    first, second = review(plans, spent)
    assert first.bytes == (1e9, 2e9)
    assert first.seconds == (8 * 0.5 + 2 * 2.0, 10.0), "two validation passes, one every four steps"
    assert second.bytes[0] is None, "another network was planned"
    assert math.isclose(first.tflops, 0.3)


def test_the_command_plans_a_model_from_its_configuration_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["experiment=text", "strategy@model.strategy=lora_all", "train.batch_size=2"]
    arguments = [part for setting in settings for part in ("-S", setting)]
    result = CliRunner().invoke(app, ["plan", *arguments, "--model", str(file), "--json"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    [planned_run] = plan["on_gpu"]
    assert plan["here"] == []
    assert 0 < planned_run["trainable"] < planned_run["parameters"]
    assert plan["chosen"]["price"]["read"] >= "2026-01-01"
    assert plan["chosen"]["usd"][0] <= plan["chosen"]["usd"][1]
    refused = CliRunner().invoke(app, ["plan", "-S", "experiment=txet"])
    assert isinstance(refused.exception, ConfigError)
    assert "experiment/txet is no option: did you mean text?" in str(refused.exception)


def test_full_training_learns_everything(file: Path) -> None:
    model = Full().apply(network_of(file, torch.float32))
    assert all(value.requires_grad for value in model.parameters())


def _steps_of_a_rank(out: Path) -> None:
    """Compute two steps of a sharded network, and let the first process write what they took."""
    from hallmark.learn.processes import rank
    from hallmark.learn.sharding import shard

    torch.distributed.init_process_group("gloo")
    _, make = examples(1)
    cost = trace_step(shard(network("full")), make(list(range(8))), adamw, clip=1.0, compute=True)
    if rank() == 0:
        out.write_text(json.dumps([cost.weights, cost.optimizer, cost.peak]))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, and there is one")
def test_a_trace_of_a_rank_is_what_a_rank_takes(tmp_path: Path) -> None:
    run(2, _steps_of_a_rank, tmp_path / "cost.json")
    weights, optimizer, peak = json.loads((tmp_path / "cost.json").read_text())
    _, make = examples(1)
    alone = trace_step(network("full"), make(list(range(8))), adamw, clip=1.0)
    cost = trace_step(network("full"), make(list(range(8))), adamw, clip=1.0, shards=2)
    assert cost.weights == pytest.approx(weights, rel=0.02)
    assert cost.optimizer == pytest.approx(optimizer, rel=0.02)
    assert cost.peak == pytest.approx(peak, rel=0.05)
    assert cost.weights < 0.6 * alone.weights
