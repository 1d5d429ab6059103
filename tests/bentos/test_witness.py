"""The witness: an adapter in the wrong slot, a stale slot, an off-by-one and a flipped bit are all found out."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bentos.witness import upper_95
from hallmark.build import build, dump
from hallmark.contracts import no_progress
from hallmark.prove.bundle import Contents, make_bundle
from tests.bentos.server import Server, running


@pytest.fixture(scope="module")
def questions(requests_by_subject: dict[str, Any]) -> dict[str, Any]:
    """A request of every person."""
    return requests_by_subject


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    with running(bundle, tmp_path, {}) as found:
        yield found


def ask(server: Server, questions: dict[str, Any]) -> list[dict[str, Any]]:
    response = server.predict({"rows": list(questions.values())})
    assert response.status_code == 200
    return list(response.json()["rows"])


def test_what_was_answered_right_is_found_right(server: Server, questions: dict[str, Any]) -> None:
    ask(server, questions)
    for _ in range(20):
        replayed = server.witness.check_one()
        assert replayed is not None
        assert replayed.equal
    assert (server.witness.checked, server.witness.wrong) == (20, 0)
    metrics = server.call("GET", "/metrics", "admin").text
    assert "hallmark_replays_total 20.0" in metrics
    assert "hallmark_replay_mismatches_total 0.0" in metrics
    bound = float(metrics.split("\nhallmark_wrong_adapter_rate_upper_95 ")[1].split()[0])
    assert bound == pytest.approx(1 - 0.05 ** (1 / 20), rel=1e-6)


def swap(cache: Any, first: str, second: str) -> None:
    cache._slots[first], cache._slots[second] = cache._slots[second], cache._slots[first]


def off_by_one(cache: Any, first: str, second: str) -> None:
    cache.bank.put(cache._slots[first], cache.bank.take(cache._slots[second]))


def stale(cache: Any, first: str, second: str) -> None:
    """The slot still holds the subject who was evicted."""
    cache._slots[first] = cache._slots.pop(second)


def flipped_bit(cache: Any, first: str, second: str) -> None:
    row = cache.bank.take(cache._slots[first])
    row.view("u1")[0, 1000] ^= 1
    cache.bank.put(cache._slots[first], row)


@pytest.mark.parametrize("fault", [swap, off_by_one, stale, flipped_bit])
def test_wrong_numbers_in_a_slot_are_found_out(server: Server, questions: dict[str, Any], fault: Any) -> None:
    first, second = list(questions)[:2]
    ask(server, questions)
    fault(server.state.engine.served.model.predictor.histories, first, second)
    server.state.records._recent.clear()
    ask(server, {first: questions[first]})
    replayed = server.witness.check_one()
    assert replayed is not None
    assert "history_sha256" in replayed.wrong_weights
    assert server.witness.wrong == 1
    assert "hallmark_wrong_adapters_total 1.0" in server.call("GET", "/metrics", "admin").text


def test_the_bound_is_the_rule_of_three_and_certain_of_nothing_before_the_first_check() -> None:
    assert upper_95(0, 0) == 1.0
    assert upper_95(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_95(1, 1000) > upper_95(0, 1000)


@pytest.fixture(scope="module")
def lora_bundle(task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path_factory: Any) -> Path:
    """A bundle whose subjects have LoRA adapters, whatever their gates say."""
    where = tmp_path_factory.mktemp("lora")
    shutil.copytree(trained, where / "model")
    shutil.rmtree(where / "model" / "subjects")
    node = {**params["personalise"], "default_method": "none", "margin": -1.0, "standard_errors": -100.0}
    made = learner.personalise(task, prepared, where / "model", build(node), where / "scratch", no_progress)
    assert made["methods"]["lora"] > 1
    learner.calibrate(task, prepared, where / "model", build(params["calibrate"]), no_progress)
    spec = {"task": dump(task), "learner": dump(learner)}
    make_bundle(where / "model", Contents(task.name, spec, [], {}, {}, {}, [], "# toy\n", None), where / "bundle")
    return where / "bundle"


def test_a_wrong_lora_adapter_is_found_out_by_the_digest_of_what_was_multiplied(
    lora_bundle: Path, questions: dict[str, Any], tmp_path: Path
) -> None:
    with running(lora_bundle, tmp_path, {}) as server:
        personalisation = server.state.engine.served.model.predictor.personalisation
        personal = [subject for subject, method in personalisation.methods.items() if method == "lora"]
        assert len(personal) > 1, "the toy must give two people a LoRA adapter"
        first, second = personal[:2]
        rows = ask(server, {subject: questions[subject] for subject in personal})
        digests = [row["evidence"]["adapter_sha256"] for row in rows]
        assert len(set(digests)) == len(personal)
        replayed = server.witness.check_one()
        assert replayed is not None
        assert replayed.equal
        with torch.no_grad():
            off_by_one(personalisation.cache, first, second)
        server.state.records._recent.clear()
        ask(server, {first: questions[first]})
        replayed = server.witness.check_one()
        assert replayed is not None
        assert replayed.wrong_weights == ("adapter_sha256",)
        assert replayed.difference
