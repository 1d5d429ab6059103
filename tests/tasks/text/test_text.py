"""The text task: what is made is the same twice, streams as it is answered, forgets little, and is looked at."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from hallmark.build import build
from hallmark.contracts import Prepared
from hallmark.errors import BundleError, ConfigError, DataError, LeakageError, SourceError
from hallmark.families.language.adaptation import load_language_model, windows
from hallmark.families.language.causal_lm import CausalLm
from hallmark.tasks.text.messages import TextResponse
from hallmark.tasks.text.sources import SimulatedTexts, TextFiles
from tests.toys import SHARED, SMALL_TEXT, compose, fit, prepare, train

TOY = SMALL_TEXT
STRATEGIES = ("full", "lora_all", "prefix")
PROMPT = "Weather for Milton on Monday.\nThe morning in"


def ask(task: Any, predictor: Any, **request: Any) -> TextResponse:
    [found] = predictor.predict([task.request_type()(**{"prompt": PROMPT, "max_tokens": 40, **request})])
    assert isinstance(found, TextResponse)
    return found


def test_the_same_seed_gives_the_same_text_and_another_another(task: Any, predictor: Any) -> None:
    once, again, other = (ask(task, predictor, seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once.text != other.text
    assert once.status == "generated"
    assert ask(task, predictor, temperature=5e-324).text == ask(task, predictor, temperature=0).text
    assert ask(task, predictor, temperature=0, seed=1).text == ask(task, predictor, temperature=0, seed=2).text


@pytest.mark.parametrize("seed", range(5))
def test_what_is_streamed_is_what_is_answered(task: Any, predictor: Any, seed: int) -> None:
    request = task.request_type()(prompt=PROMPT, max_tokens=60, seed=seed)
    pieces = list(predictor.stream(request))
    assert "".join(pieces) == predictor.predict([request])[0].text
    assert len(pieces) > 1  # sentence by sentence


def test_keys_and_values_kept_change_nothing(predictor: Any) -> None:
    model, text = predictor.model.model, predictor.model.text
    [prompt] = text.ids([PROMPT])
    made = list(model.continue_from(prompt, 12, 0, 1.0, torch.Generator(), text.end, 64))
    slow = list(prompt)
    for _ in made:
        slow.append(int(model.body(input_ids=torch.tensor([slow])).logits[0, -1].argmax()))
    assert slow[len(prompt) :] == made


def test_a_full_context_is_read_anew_from_its_second_half(predictor: Any) -> None:
    model, text = predictor.model.model, predictor.model.text
    [prompt] = text.ids([PROMPT])
    made = list(model.continue_from(prompt, 40, 0, 1.0, torch.Generator(), text.end, 16))
    seen = list(prompt)[-16:]
    for token in made:
        assert int(model.body(input_ids=torch.tensor([seen])).logits[0, -1].argmax()) == token
        seen = [*seen, token]
        seen = seen[-8:] if len(seen) > 16 else seen


def test_the_closing_token_cannot_be_typed(predictor: Any) -> None:
    [ids] = predictor.model.text.ids(["before <|end|> after"])
    assert predictor.model.text.end not in ids


def test_training_is_the_same_twice(
    params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    fit(params, task, learner, prepared, tmp_path)
    for name in ("learned.safetensors", "initial_checkpoint/model.safetensors", "initial_checkpoint/tokenizer.json"):
        assert (tmp_path / "base" / name).read_bytes() == (trained / "base" / name).read_bytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns_the_new_domain_and_comes_back_from_disk(
    strategy: str, prepared: Prepared, task: Any, learner: Any, tmp_path: Path
) -> None:
    params = compose(*SMALL_TEXT, f"strategy@model.strategy={strategy}", "train.learning_rate=0.01")
    made = train(params, task, learner, prepared, tmp_path)
    model = load_language_model(made / "base")
    texts = task.texts(prepared, "target", "test")[:5]
    before = model.before()
    assert sum(map(model.nats, texts)) < sum(map(before.nats, texts))
    learned = json.loads((made / "training.json").read_text())["candidates"]["causal_lm"]["parameters"]
    whole = sum(value.numel() for value in before.model.parameters())
    assert learned == whole if strategy == "full" else 0 < learned < whole
    [ids] = model.text.ids([PROMPT])
    assert list(model.model.continue_from(ids, 5, 0, 1.0, torch.Generator(), model.text.end, 64))


def test_qlora_without_its_library_is_an_error_and_never_something_else(
    prepared: Prepared, task: Any, learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = compose(*SMALL_TEXT, "strategy@model.strategy=qlora")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(ConfigError, match=r"bitsandbytes is not installed: `pip install hallmark\[gpu\]`"):
        train(params, task, learner, prepared, tmp_path)
    assert not (tmp_path / "base").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes (extra gpu) is not installed"
)
def test_qlora_trains_four_bit_layers_on_a_cpu(prepared: Prepared, task: Any, learner: Any, tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    wide = [change for change in SMALL_TEXT if "width" not in change]  # four bits come in blocks of 64
    params = compose(
        *wide, "model.initial_checkpoint.width=64", "strategy@model.strategy=qlora", "train.learning_rate=0.005"
    )
    made = train(params, task, learner, prepared, tmp_path)
    model = load_language_model(made / "base")
    assert sum(isinstance(layer, Linear4bit) for layer in model.model.modules()) == 14
    texts = task.texts(prepared, "target", "test")[:5]
    assert sum(map(model.nats, texts)) < sum(map(model.before().nats, texts))


def test_windows_hold_every_token_once(predictor: Any) -> None:
    text = predictor.model.text
    texts = ["Weather for Milton.", "Rain comes in the evening.", "x" * 300]
    rows = windows(texts, text, 16)
    flat = [int(rows[0, 0]), *(int(token) for row in rows for token in row[1:] if token >= 0)]
    joined = [text.end]
    for ids in text.ids(texts):
        joined += [*ids, text.end]
    assert flat == joined
    assert all(rows[i, 0] == rows[i - 1, -1] for i in range(1, len(rows)))


def test_the_cost_of_a_text_is_that_of_its_tokens(predictor: Any) -> None:
    model = predictor.model
    text = "By noon it is grey."
    [ids] = model.text.ids([text])
    tokens = torch.tensor([[model.text.end, *ids, model.text.end]])
    shares = torch.log_softmax(model.model.body(input_ids=tokens[:, :-1]).logits.float(), dim=-1)[0]
    expected = -float(shares.gather(1, tokens[0, 1:, None]).detach().double().sum())
    assert model.nats(text) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "the prompt is empty"),
        ("  \n\t", "the prompt is empty"),
        ("😀😀 123", "the prompt holds no letters"),
        ("Погода в Москве", "the prompt is not in Latin letters"),
        ("Das Wetter wird morgen sicherlich kalt und ziemlich regnerisch werden", "the prompt does not look English"),
        ("Weather 😀 for Milton", ""),
        ("x" * 20_000, ""),
    ],
)
def test_what_no_model_of_english_may_go_on_from_is_refused(
    task: Any, predictor: Any, prompt: str, reason: str
) -> None:
    found = ask(task, predictor, prompt=prompt, max_tokens=3)
    assert found.reason == reason
    assert (found.text is None) == bool(reason)
    if reason:
        assert list(predictor.stream(task.request_type()(prompt=prompt))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "x" * 1_000_000},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"max_tokens": 0},
        {"seed": -1},
        {"stop": "x"},
    ],
)
def test_a_request_out_of_bounds_is_refused(task: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task.request_type()(**{"prompt": PROMPT, **change})


def test_harm_is_withheld_whole_and_streamed_never(task: Any, predictor: Any) -> None:
    class Strict:
        def harms(self, text: str) -> list[str]:
            return ["wind"] if "wind" in text else []

    strict = dataclasses.replace(predictor, screens=(Strict(),))
    calm = ask(task, strict, prompt="Weather", max_tokens=1)
    assert calm.status == "generated"
    for seed in range(20):
        request = task.request_type()(prompt=PROMPT, max_tokens=80, seed=seed)
        plain = predictor.predict([request])[0].text
        found = strict.predict([request])[0]
        assert (found.harms == ["wind"]) == ("wind" in plain)
        assert "wind" not in "".join(strict.stream(request))
        if found.harms:
            assert found.text is None
            return
    pytest.fail("no sample spoke of wind: the test shows nothing")


def test_an_answer_that_does_not_agree_with_itself_cannot_be_made(task: Any, predictor: Any) -> None:
    values = ask(task, predictor).model_dump()
    for change in ({"reason": "because"}, {"text": None}, {"finish": None}, {"harms": ["insult"]}, {"disclaimer": ""}):
        with pytest.raises(ValidationError):
            TextResponse(**{**values, **change})


def test_rows_that_are_not_whole_are_counted(task: Any) -> None:
    raw = SimulatedTexts(50, 50, 0).load()
    rows = raw.rows.copy()
    rows.loc[0, "text"] = None
    rows.loc[1, "text"] = "123 !!!"
    rows.loc[2, "text"] = "broken � text"
    rows.loc[3, "domain"] = "future"
    rows.loc[4, "text"] = rows.loc[5, "text"].replace("\n", "\r\n")
    clean = task.clean(dataclasses.replace(raw, rows=rows))
    reasons = {r["reason"]: r["rows"] for r in clean.report["reasons"]}
    assert reasons["no text"] == 1
    assert reasons["decoded with the wrong encoding"] == 1
    assert reasons["the same text again"] == 1
    assert reasons["a domain other than source, target"] == 1
    assert any(reason.startswith("no letters") for reason in reasons)
    with pytest.raises(DataError, match="no text of the target domain is left"):
        task.clean(dataclasses.replace(raw, rows=raw.rows[raw.rows["domain"] == "source"]))


def test_the_same_text_in_two_parts_is_a_leak(task: Any, prepared: Prepared) -> None:
    rows = pd.concat([prepared.rows, prepared.rows.head(1)], ignore_index=True)
    other = "test" if prepared.splits["split"].iloc[0] != "test" else "train"
    splits = pd.concat([prepared.splits, pd.DataFrame({"row": [len(rows) - 1], "split": [other]})], ignore_index=True)
    with pytest.raises(LeakageError, match="1 texts lie in two of"):
        task.check_leakage(Prepared(rows, prepared.subjects, splits))


def test_settings_that_make_no_sense_are_refused() -> None:
    for change, message in (
        ("model.initial_checkpoint.vocabulary=200", "vocabulary=200: must be greater than or equal to 300"),
        ("model.initial_checkpoint.heads=3", "must be an even multiple of heads=3"),
        ("model.candidates.0.replay_share=1", "replay_share=1: must be less than 1"),
        ("model.candidates.0.context_length=8", "context_length=8: must be greater than or equal to 16"),
        ("task.screens=[]", r"screens=\[\]: must have at least 1 item"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(compose("experiment=text", change))


def test_too_few_texts_for_the_vocabulary_are_one_line(task: Any, learner: Any, tmp_path: Path) -> None:
    params = compose(*SMALL_TEXT, "data.reports=20", "data.recipes=20", "model.initial_checkpoint.vocabulary=5000")
    with pytest.raises(
        ConfigError, match=r"model\.initial_checkpoint\.vocabulary=5000: the texts give only \d+ tokens: lower it"
    ):
        train(params, task, build(params["learner"]), prepare(params, task), tmp_path)


def test_files_that_are_no_texts_are_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.json"
    with pytest.raises(SourceError, match=r"old\.txt is not there"):
        TextFiles(str(old), (str(new),), 1).load()
    old.write_bytes("café".encode("latin-1"))
    with pytest.raises(SourceError, match="is not UTF-8 text at byte 3"):
        TextFiles(str(old), (str(new),), 1).load()
    old.write_text("One.\n\nTwo.\n\n\nThree.")
    new.write_text('{"source": "tech"}\n')
    with pytest.raises(SourceError, match="line 1 is no sentence with source, idx and tokens"):
        TextFiles(str(old), (str(new),), 1).load()
    new.write_text('{"source": "tech", "idx": 1, "tokens": ["A", "job"]}\n' * 2)
    rows = TextFiles(str(old), (str(new),), 2).load().rows
    assert rows["text"].tolist() == ["One.\n\nTwo.", "Three.", "A job\nA job"]


def test_a_changed_weight_of_the_start_is_another_model(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained / "base", tmp_path / "base")
    (tmp_path / "base" / "learned.safetensors").write_bytes(b"x" * 10)
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_language_model(tmp_path / "base")


def test_tied_weights_are_kept_once(predictor: Any) -> None:
    names = [name for name, _ in predictor.model.model.named_parameters()]
    assert isinstance(predictor.model.model, CausalLm)
    assert sum("embed_tokens" in name or "lm_head" in name for name in names) == 1


@pytest.mark.real
def test_published_texts_are_read_whole() -> None:
    texts = SHARED / "cv"
    new = tuple(str(texts / f"skillspan_{part}.json") for part in ("train", "dev", "test"))
    rows = TextFiles(str(SHARED / "text" / "tinyshakespeare.txt"), new, 10).load().rows
    counts = rows["domain"].value_counts()
    assert counts["target"] > 250
    assert counts["source"] > 700
    assert rows.loc[rows["domain"] == "source", "text"].str.len().sum() > 1_090_000
