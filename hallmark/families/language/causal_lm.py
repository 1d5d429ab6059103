"""Causal language models: pretrained or trained from scratch, and strategies of fine-tuning (full, LoRA, prefix).

Legend of shapes: B texts, T tokens, V vocabulary.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hallmark.errors import ConfigError
from hallmark.families.language.encoder import AsItIs, Lora, Strategy, Weights

END = "<|end|>"
TOKENIZER = "tokenizer.json"


class Start(Protocol):
    """What is there before the new domain is learned."""

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed where it is served."""


@dataclass(frozen=True)
class FromScratch:
    """A small model of our own (Qwen3's architecture) and its byte-level tokenizer, trained on the old domain.

    Attributes:
        vocabulary: tokens, the 256 bytes among them, so that every text can be written.
        width: of the hidden states.
        layers: how many.
        heads: of attention.
        budget_tflop: that training on the old domain may cost.
        learning_rate: peak of its schedule.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    budget_tflop: float
    learning_rate: float

    def __post_init__(self) -> None:
        if self.vocabulary < 300:
            raise ValueError(f"vocabulary={self.vocabulary} must be 300 at least: 256 bytes and what they join to")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")

    @property
    def requirements(self) -> Sequence[str]:
        """None: it is in the bundle."""
        return ()

    def model(self, end: int, context_length: int) -> nn.Module:
        """Make one with fresh weights; `end` is the token that closes a text."""
        from transformers import Qwen3Config, Qwen3ForCausalLM

        config = Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            head_dim=self.width // self.heads,
            max_position_embeddings=max(4 * context_length, 1024),
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            attn_implementation="sdpa",
        )
        made: nn.Module = Qwen3ForCausalLM(config)
        return made

    def tokenizer(self, texts: Iterator[str]) -> Any:
        """Learn a byte-level byte-pair encoding from texts (a `tokenizers.Tokenizer`)."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        if made.get_vocab_size() < self.vocabulary:
            raise ConfigError(
                f"model.start.vocabulary={self.vocabulary}: the texts give {made.get_vocab_size()} tokens: lower it"
            )
        return made


@dataclass(frozen=True)
class Pretrained:
    """A model that somebody else has trained, with its tokenizer.

    Attributes:
        weights: where it comes from.
    """

    weights: Weights

    @property
    def requirements(self) -> Sequence[str]:
        """What must be installed where it is served."""
        return self.weights.requirements


@dataclass(frozen=True)
class QLora:
    """Low-rank factors beside layers whose own weights are kept in four bits.

    Source: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023.

    Attributes:
        lora: the factors.
    """

    lora: Lora

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and add factors."""
        return self.lora.apply(model)

    def loading(self) -> Mapping[str, Any]:
        """Quantise to four bits (NF4, twice); ConfigError without the library: there is no downgrade."""
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                "model.strategy is QLora and bitsandbytes is not installed: `pip install hallmark[gpu]`, "
                "or choose -S strategy@model.strategy=lora_all"
            )
        from transformers import BitsAndBytesConfig

        quantised = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32 if not torch.cuda.is_available() else torch.bfloat16,
        )
        return {"quantization_config": quantised, "device_map": "cuda" if torch.cuda.is_available() else "cpu"}


@dataclass(frozen=True)
class Prefix(AsItIs):
    """Learned keys and values before every layer's own; the model stays as it is.

    Source: Li & Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, 2021.

    Attributes:
        tokens: how many.
    """

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens} must be at least 1")

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and put the prefix before it."""
        from peft import PrefixTuningConfig, TaskType, get_peft_model

        config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens)
        made: nn.Module = get_peft_model(model, config)
        return made


@dataclass(frozen=True)
class CausalLmConfig:
    """A language model that is made to fit a domain.

    Attributes:
        name: among candidates.
        start: what is there before.
        strategy: how the new domain is learned.
        context_length: tokens that are read at once.
        replay_share: of the texts it adapts on, old ones, against forgetting.
    """

    name: str
    start: FromScratch | Pretrained
    strategy: Strategy
    context_length: int
    replay_share: float

    def __post_init__(self) -> None:
        if self.context_length < 16:
            raise ValueError(f"context_length={self.context_length} must be 16 at least")
        if not 0 <= self.replay_share < 1:
            raise ValueError(f"replay_share={self.replay_share} must lie within 0…1, 1 excluded")

    @property
    def requirements(self) -> Sequence[str]:
        """What must be installed where it is served."""
        return self.start.requirements


class Text:
    """A tokenizer that closes every text with one token."""

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        self.tokenizer.encode_special_tokens = True  # whoever writes the closing token writes its letters
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        names = (END, "<|endoftext|>", "<|im_end|>", "</s>")
        found = [number for name in names if (number := self.tokenizer.token_to_id(name)) is not None]
        if not found:
            raise ConfigError(f"{directory / TOKENIZER} has none of {', '.join(names)}: nothing closes a text")
        self.end = int(found[0])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into tokens, without the closing one."""
        return [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        """Turn tokens into a text; half a character becomes a replacement sign."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class CausalLm(nn.Module):
    """A language model behind the trainer's call."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Score texts: nats of every token (B, T), NaN-free where `target` is -100, and their mean as the loss."""
        logits = self.body(input_ids=input_ids, use_cache=False).logits.float()
        each = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="none")
        return {"loss": each.sum() / (target != -100).sum().clamp(min=1), "nats": each.view_as(target)}

    @torch.no_grad()
    def continue_from(
        self,
        prompt: Sequence[int],
        most: int,
        temperature: float,
        top_p: float,
        generator: torch.Generator,
        end: int,
        context_length: int,
    ) -> Iterator[int]:
        """Sample token after token until the closing one; O(tokens × context) with the keys and values kept.

        Where the context is full, its second half is read anew: the model never stands where it was not trained.

        Args:
            prompt: tokens, at least one.
            most: tokens to make, at most.
            temperature: that logits are divided by; 0 takes the likeliest.
            top_p: share of probability that is drawn from.
            generator: decides the draws.
            end: the closing token, which is not given out.
            context_length: tokens that it reads at once.
        """
        device = next(self.body.parameters()).device
        seen = list(prompt)[-context_length:]
        ids = torch.tensor([seen], device=device)
        # A prefix is in the keys and values that the first call leaves: what follows goes to the model beneath.
        inner = getattr(self.body, "get_base_model", lambda: self.body)()
        found = self.body(input_ids=ids, use_cache=True)
        for made in range(most):
            token = _draw(found.logits[0, -1].float().cpu(), temperature, top_p, generator)
            if token == end:
                return
            yield token
            seen.append(token)
            if len(seen) > context_length:
                seen = seen[-(context_length // 2) :]
                found = self.body(input_ids=torch.tensor([seen], device=device), use_cache=True)
            elif made + 1 < most:
                ids = torch.tensor([[token]], device=device)
                found = inner(input_ids=ids, past_key_values=found.past_key_values, use_cache=True)


def _draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    shares, order = torch.sort(
        torch.softmax((logits.double() - logits.max()) / temperature, dim=0), descending=True, stable=True
    )
    kept = int((shares.cumsum(0) < top_p).sum()) + 1
    within = shares[:kept] / shares[:kept].sum()
    return int(order[int(torch.multinomial(within, 1, generator=generator))])


def open_body(directory: Path, loading: Mapping[str, Any] | None = None) -> nn.Module:
    """Load a language model from a directory; `loading` says how, see `Strategy.loading`."""
    from transformers import AutoModelForCausalLM

    made: nn.Module = AutoModelForCausalLM.from_pretrained(
        str(directory), local_files_only=True, attn_implementation="sdpa", dtype=torch.float32, **(loading or {})
    )
    return made
