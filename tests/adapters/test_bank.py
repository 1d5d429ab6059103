"""The adapter bank: PEFT is the oracle, slot 0 is the base, and nobody ever gets another's adapter."""

import copy
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from hallmark.adapters.bank import AdapterBank, AdapterSpec, spec_of
from hallmark.adapters.cache import AdapterCache
from hallmark.adapters.files import (
    PackedStore,
    PeftStore,
    flatten,
    read_peft,
    unflatten,
    write_packed,
    write_peft,
)
from hallmark.errors import BundleError
from hallmark.families.forecasting.network import Forecaster, Shape
from hallmark.families.forecasting.patchtst import PatchTSTBodyConfig
from hallmark.families.forecasting.residual_mlp import ResidualMLPConfig

Case = tuple[nn.Module, str, Callable[[int], dict[str, Tensor]], Callable[[Any], Tensor]]
SHAPE = Shape(inputs=20, personal=5, recent=24, horizons=3, quantile_levels=(0.1, 0.5, 0.9))


def forecaster(body: Any) -> Case:
    model = Forecaster(body.build(SHAPE), SHAPE, body.lora_targets, 0.1, 0.1, 2.0).eval()
    nn.init.normal_(model.body.head.weight, std=0.1)

    def batch(rows: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(rows)
        sizes = {
            "x": (rows, 20),
            "recent": (rows, 24),
            "anchor": (rows, 3),
            "correction": (rows, 3),
            "habit": (rows, 3),
        }
        found = {name: torch.randn(size, generator=g) for name, size in sizes.items()}
        return found | {name: torch.ones(rows) for name in ("known", "adapted", "maturity")}

    return model, body.lora_targets, batch, lambda out: out["quantiles"]


def channels() -> Case:
    """A PatchTST that folds three channels into the batch."""
    from transformers import PatchTSTConfig, PatchTSTModel

    sizes = {"d_model": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    config = PatchTSTConfig(num_input_channels=3, context_length=24, patch_length=6, patch_stride=6, **sizes)
    targets = r"encoder.*\.(q_proj|v_proj|ff\.0|ff\.3)|.*input_embedding"
    g = torch.Generator().manual_seed(0)
    return (
        PatchTSTModel(config).eval(),
        targets,
        lambda rows: {"past_values": torch.randn(rows, 24, 3, generator=g.manual_seed(rows))},
        lambda out: out.last_hidden_state,
    )


SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def tokens(rows: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 50, (rows, 9), generator=torch.Generator().manual_seed(rows))}


def encoder() -> Case:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**SIZES)).eval()
    return model, r".*\.(query|value|intermediate\.dense)", tokens, lambda out: out.last_hidden_state


def causal() -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    targets = r".*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return model, targets, tokens, lambda out: out.logits


CASES: dict[str, Callable[[], Case]] = {
    "residual_mlp": lambda: forecaster(ResidualMLPConfig(16, 32, 2, 0.1, 0.1)),
    "patchtst": lambda: forecaster(PatchTSTBodyConfig(6, 16, 32, 2, 2, 16, 0.1)),
    "patchtst_channels": channels,
    "encoder": encoder,
    "causal": causal,
}


def bank_of(model: nn.Module, targets: str, people: int) -> AdapterBank:
    """A bank around a copy of the model, with so many people in it."""
    spec = spec_of(model, targets, "base", 2, 4)
    bank = AdapterBank(copy.deepcopy(model), spec, people)
    bank.put(1, drawn(spec, people))
    return bank


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]()


def small() -> tuple[Case, AdapterSpec]:
    torch.manual_seed(0)
    found = CASES["residual_mlp"]()
    return found, spec_of(found[0], found[1], "b" * 64, 2, 4)


def drawn(spec: AdapterSpec, count: int) -> Any:
    return (np.random.default_rng(0).standard_normal((count, spec.size)) * 0.1).astype(np.float32)


@torch.no_grad()
def test_each_row_is_what_peft_gives_its_own_adapter(case: Case, tmp_path: Path) -> None:
    model, targets, batch, look = case
    spec = spec_of(model, targets, "base", 2, 4)
    block = drawn(spec, 5)
    bank = AdapterBank(copy.deepcopy(model), spec, 5)
    bank.put(1, block)
    rows = torch.tensor([3, 0, 5, 1, 3, 2, 4, 0])
    inputs = batch(len(rows))
    mixed = look(bank(rows, **inputs))
    bases = look(model(**inputs))
    for slot in range(6):
        mine = rows == slot
        if slot == 0:
            assert torch.equal(mixed[mine], look(bank(None, **inputs))[mine])
            torch.testing.assert_close(mixed[mine], bases[mine], rtol=0, atol=0)
            continue
        write_peft(unflatten(block[slot - 1], spec), spec, tmp_path / str(slot), targets)
        oracle = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / str(slot))).eval()
        torch.testing.assert_close(mixed[mine], look(oracle(**inputs))[mine], rtol=0, atol=1e-5)
        assert not torch.allclose(mixed[mine], bases[mine], atol=1e-3)


@torch.no_grad()
def test_blocks_of_rows_are_the_rows_one_by_one(case: Case) -> None:
    model, targets, batch, look = case
    bank = bank_of(model, targets, 4)
    inputs = batch(12)
    blocks, rows = look(bank(4, **inputs)), look(bank(torch.arange(1, 5).repeat_interleave(3), **inputs))
    torch.testing.assert_close(blocks, rows, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(CASES) - {"patchtst_channels"}))  # there the base alone does not compile
def test_a_bank_compiles_whole_and_other_people_need_no_new_graph(name: str) -> None:
    torch.manual_seed(0)
    model, targets, batch, look = CASES[name]()
    bank = bank_of(model, targets, 4).eval()
    inputs, graphs = batch(4), []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(bank, backend=count, fullgraph=True)
    for slots in ([1, 0, 3, 4], [4, 4, 0, 1]):
        rows = torch.tensor(slots)
        torch.testing.assert_close(look(compiled(rows, **inputs)), look(bank(rows, **inputs)), rtol=0, atol=1e-5)
    assert len(graphs) == 1


@torch.no_grad()
def test_one_row_alone_is_what_it_is_among_others(case: Case) -> None:
    model, targets, batch, look = case
    bank = bank_of(model, targets, 3)
    inputs = batch(4)
    rows = torch.tensor([2, 0, 3, 1])
    together = look(bank(rows, **inputs))
    for i in range(4):
        alone = look(bank(rows[i : i + 1], **{name: value[i : i + 1] for name, value in inputs.items()}))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


@torch.no_grad()
def test_half_precision_storage_and_autocast_stay_near(case: Case) -> None:
    model, targets, batch, look = case
    spec = spec_of(model, targets, "base", 2, 4)
    full = AdapterBank(copy.deepcopy(model), spec, 3)
    half = AdapterBank(copy.deepcopy(model), spec, 3, torch.bfloat16)
    rows, inputs = torch.tensor([1, 2, 3, 0]), batch(4)
    for bank in (full, half):
        bank.put(1, drawn(spec, 3))
    expected = look(full(rows, **inputs))
    scale = float(expected.abs().max())
    assert float((look(half(rows, **inputs)) - expected).abs().max()) < 0.02 * scale
    with torch.autocast("cpu", torch.bfloat16):
        assert float((look(full(rows, **inputs)) - expected).abs().max()) < 0.1 * scale


def test_a_bank_gives_back_what_was_put_in() -> None:
    (model, *_), spec = small()
    bank = AdapterBank(model, spec, 7)
    block = drawn(spec, 3)
    bank.put(4, block)
    np.testing.assert_allclose(bank.take(4, 3), block, rtol=1e-6)
    assert not bank.take(1, 3).any()
    for slot in (0, 6, -1):
        with pytest.raises(IndexError, match="slot 0 is the base"):
            bank.put(slot, block)


@torch.no_grad()
def test_the_least_recently_used_makes_room() -> None:
    (model, _, batch, look), spec = small()
    block = drawn(spec, 4)

    reads = []

    class Memory:
        def read(self, subject_id: str) -> Any:
            reads.append(subject_id)
            return block["abcd".index(subject_id)]

    cache = AdapterCache(AdapterBank(copy.deepcopy(model), spec, 2), Memory())
    everyone = AdapterBank(copy.deepcopy(model), spec, 4)
    everyone.put(1, block)
    for subjects in (["a"], ["b", "a"], ["c"], ["a", "a", None], ["d"], ["b"]):
        inputs = batch(len(subjects))
        found, reasons = cache.forward(subjects, **inputs)
        rows = torch.tensor([0 if s is None else 1 + "abcd".index(s) for s in subjects])
        torch.testing.assert_close(look(found), look(everyone(rows, **inputs)), rtol=0, atol=1e-6)
        assert [bool(r) for r in reasons] == [s is None for s in subjects]
    assert reads == ["a", "b", "c", "a", "d", "b"]
    assert cache.subjects == ["d", "b"]
    cache.forget("d")
    assert cache.subjects == ["b"]


@torch.no_grad()
def test_a_subject_without_a_usable_adapter_gets_the_base_and_the_reason(tmp_path: Path) -> None:
    (model, targets, batch, look), spec = small()
    good, other = tmp_path / "good", tmp_path / "other"
    write_peft(unflatten(drawn(spec, 1)[0], spec), spec, good, targets)
    write_peft(unflatten(drawn(spec, 1)[0], spec), replace(spec, base="c" * 64), other, targets)
    shutil.copytree(good, tmp_path / "cut")
    weights = tmp_path / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    directories = {s: tmp_path / s for s in ("good", "other", "cut", "gone")}
    cache = AdapterCache(AdapterBank(copy.deepcopy(model), spec, 8), PeftStore(directories, {}, spec))
    subjects = ["good", "other", "cut", "gone", "nobody", None]
    inputs = batch(6)
    found, reasons = cache.forward(subjects, **inputs)
    assert reasons[0] == ""
    assert reasons[1].startswith("adapter was made for base cccccccccccc, this one is bbbbbbbbbbbb")
    assert reasons[2].startswith("adapter cannot be read")
    assert reasons[3:] == ["adapter is missing", "no subject has this id", "no subject was named"]
    torch.testing.assert_close(look(found)[1:], look(model(**inputs))[1:], rtol=0, atol=0)
    assert cache.subjects == ["good"]


@torch.no_grad()
def test_a_batch_of_more_people_than_slots_serves_the_rest_by_the_base() -> None:
    (model, _, batch, look), spec = small()
    block = drawn(spec, 3)

    class Memory:
        def read(self, subject_id: str) -> Any:
            return block[int(subject_id)]

    cache = AdapterCache(AdapterBank(copy.deepcopy(model), spec, 2), Memory())
    inputs = batch(3)
    found, reasons = cache.forward(["0", "1", "2"], **inputs)
    assert reasons == ["", "", "the bank's 2 slots are all taken by this batch"]
    torch.testing.assert_close(look(found)[2], look(model(**inputs))[2], rtol=0, atol=0)


def test_threads_never_meet_each_others_adapter() -> None:
    (model, _, batch, look), spec = small()
    block = drawn(spec, 6)

    class Memory:
        def read(self, subject_id: str) -> Any:
            return block[int(subject_id)]

    cache = AdapterCache(AdapterBank(copy.deepcopy(model), spec, 3), Memory())
    everyone = AdapterBank(copy.deepcopy(model), spec, 6)
    everyone.put(1, block)
    inputs = batch(2)
    with torch.no_grad():
        expected = {i: look(everyone(torch.tensor([i + 1, i + 1]), **inputs)) for i in range(6)}
    wrong = []

    @torch.no_grad()
    def work(i: int) -> None:
        for _ in range(40):
            found, reasons = cache.forward([str(i), str(i)], **inputs)
            if reasons != ["", ""] or not torch.allclose(look(found), expected[i], atol=1e-6):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a layer missing": (lambda f: f.popitem(), "differ in their target layers"),
    "another rank": (
        lambda f: f.update({next(iter(f)): tuple(torch.zeros(3, 3) for _ in "ab")}),
        "the base takes rank 2",
    ),
    "NaN": (lambda f: next(iter(f.values()))[0].fill_(float("nan")), "not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_factors_that_do_not_fit_are_refused(name: str) -> None:
    _, spec = small()
    factors = {k: (a.clone(), b.clone()) for k, (a, b) in unflatten(drawn(spec, 1)[0], spec).items()}
    spoil, message = BROKEN[name]
    spoil(factors)
    with pytest.raises(BundleError, match=message):
        flatten(factors, spec)


def test_a_changed_directory_is_refused(tmp_path: Path) -> None:
    from hallmark.files import sha256

    (_, targets, *_), spec = small()
    write_peft(unflatten(drawn(spec, 1)[0], spec), spec, tmp_path / "a", targets)
    digest = sha256(tmp_path / "a")
    assert read_peft(tmp_path / "a", spec, digest)
    weights = tmp_path / "a" / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(BundleError, match="changed after it was made"):
        read_peft(tmp_path / "a", spec, digest)
    with pytest.raises(BundleError, match=r"rank 2 and alpha 4, this base takes 8 and 4"):
        read_peft(tmp_path / "a", replace(spec, rank=8))


def test_a_packed_file_gives_every_row_and_one_flipped_bit_costs_one_person(tmp_path: Path) -> None:
    _, spec = small()
    block, file = drawn(spec, 5), tmp_path / "adapters.safetensors"
    names = [f"p{i}" for i in range(5)]
    write_packed(zip(names, block, strict=True), 5, spec, file)
    store = PackedStore(file, spec)
    assert list(store.subjects) == names
    np.testing.assert_array_equal(store.read("p3"), block[3])
    with pytest.raises(KeyError):
        store.read("p9")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    store = PackedStore(file, spec)
    np.testing.assert_array_equal(store.read("p3"), block[3])
    with pytest.raises(BundleError, match="changed after it was packed"):
        store.read("p4")


def test_a_packed_file_is_read_right_by_a_spec_with_its_layers_in_another_order(tmp_path: Path) -> None:
    _, spec = small()
    backwards = replace(spec, shapes=dict(reversed(spec.shapes.items())))
    factors = unflatten(drawn(spec, 1)[0], spec)
    for writer, reader in ((spec, backwards), (backwards, spec)):
        file = tmp_path / "adapters.safetensors"
        root = write_packed(iter([("a", flatten(factors, writer))]), 1, writer, file)
        np.testing.assert_array_equal(PackedStore(file, reader, root).read("a"), flatten(factors, reader))


def test_a_packed_file_of_another_base_or_twice_the_same_person_is_refused(tmp_path: Path) -> None:
    _, spec = small()
    file = tmp_path / "adapters.safetensors"
    with pytest.raises(BundleError, match="ids must be unique"):
        write_packed(iter([("a", drawn(spec, 1)[0])] * 2), 2, spec, file)
    write_packed(iter([("a", drawn(spec, 1)[0])]), 1, spec, file)
    for wrong, message in ((replace(spec, base="c" * 64), "packed for base"), (replace(spec, alpha=1.0), "for alpha")):
        with pytest.raises(BundleError, match=message):
            PackedStore(file, wrong).read("a")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BundleError, match="cannot be read"):
        PackedStore(file, spec).read("a")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the bank on a GPU is not run here")
@torch.no_grad()
def test_a_cuda_graph_of_the_bank_gives_what_the_cpu_gives() -> None:
    (model, _, batch, look), spec = small()
    bank = AdapterBank(copy.deepcopy(model), spec, 4)
    bank.put(1, drawn(spec, 4))
    inputs, rows = batch(4), torch.tensor([1, 0, 3, 4])
    expected = look(bank(rows, **inputs))
    bank.cuda()
    there, slots = {name: tensor.cuda() for name, tensor in inputs.items()}, rows.cuda()
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        with torch.cuda.stream(stream):
            for _ in range(3):
                look(bank(slots, **there))
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            found = look(bank(slots, **there))
    graph.replay()
    torch.testing.assert_close(found.float().cpu(), expected, rtol=2e-2, atol=2e-2)
