"""Causal language models: from scratch or pretrained, tokenizer, QLoRA and prefix tuning, token sampling.

Legend of shapes: B texts, T tokens, V vocabulary.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hallmark.build import Count, Positive, configuration
from hallmark.errors import ConfigError
from hallmark.families.language.encoder import DefaultLoading, Lora, Strategy, Weights

END = "<|end|>"
TOKENIZER = "tokenizer.json"


@configuration
class FromScratch:
    """A small model with Qwen3's architecture and a byte-level tokenizer, trained from scratch on the source corpus.

    Attributes:
        vocabulary: size of the vocabulary; it contains all 256 bytes, so that every text can be encoded.
        width: size of the hidden states.
        layers: number of layers.
        heads: number of attention heads.
        budget_tflop: floating point operations (10¹²) that training on the source corpus may cost.
        learning_rate: peak of its schedule.
    """

    vocabulary: Annotated[int, Field(ge=300)]
    width: Count
    layers: Count
    heads: Count
    budget_tflop: Positive
    learning_rate: Positive

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")

    @property
    def requirements(self) -> Sequence[str]:
        """Return no distribution: the bundle contains the checkpoint."""
        return ()

    def model(self, end: int, context_length: int) -> nn.Module:
        """Build the network with random weights; `end` is the id of the token that closes a text."""
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
        network: nn.Module = Qwen3ForCausalLM(config)
        return network

    def tokenizer(self, texts: Iterator[str]) -> Any:
        """Train a byte-level byte-pair encoding on texts; returns a `tokenizers.Tokenizer`."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        if bpe.get_vocab_size() < self.vocabulary:
            raise ConfigError(
                f"model.initial_checkpoint.vocabulary={self.vocabulary}: the texts give only {bpe.get_vocab_size()} "
                "tokens: lower it"
            )
        return bpe


@configuration
class Pretrained:
    """A published pretrained model with its tokenizer.

    Attributes:
        weights: source of its files.
    """

    weights: Weights

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed to serve the model."""
        return self.weights.requirements


@configuration
class QLora:
    """LoRA on a base model whose weights are quantised to four bits.

    Source: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023.

    Attributes:
        lora: settings of the low-rank factors.
    """

    lora: Lora
    four_bit: ClassVar[bool] = True

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and add low-rank factors."""
        return self.lora.apply(model)

    def loading(self) -> Mapping[str, Any]:
        """Return the arguments for four-bit loading (NF4, double quantisation).

        Raises:
            ConfigError: bitsandbytes is not installed; the model is never loaded unquantised instead.
        """
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


@configuration
class Prefix(DefaultLoading):
    """Prefix tuning: trainable keys and values before those of every layer; the base model is frozen.

    Source: Li & Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, 2021.

    Attributes:
        tokens: length of the prefix.
    """

    tokens: Count

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and add the prefix."""
        from peft import PrefixTuningConfig, TaskType, get_peft_model

        config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens)
        adapted: nn.Module = get_peft_model(model, config)
        return adapted


@configuration
class CausalLmConfig:
    """A candidate of domain adaptation: a causal language model and how it is fine-tuned.

    Attributes:
        name: name among the candidates.
        initial_checkpoint: the model before adaptation.
        strategy: fine-tuning method (full, LoRA, QLoRA, prefix).
        context_length: tokens that the model reads at once.
        replay_share: share of source windows among all windows, against forgetting.
    """

    name: str
    initial_checkpoint: FromScratch | Pretrained
    strategy: Strategy
    context_length: Annotated[int, Field(ge=16)]
    replay_share: Annotated[float, Field(ge=0, lt=1)]

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed to serve the model."""
        return self.initial_checkpoint.requirements


class LmTokenizer:
    """A tokenizer with one closing token for every text."""

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        self.tokenizer.encode_special_tokens = True  # the string of a special token in a text is ordinary text
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        names = (END, "<|endoftext|>", "<|im_end|>", "</s>")
        end_ids = [token_id for name in names if (token_id := self.tokenizer.token_to_id(name)) is not None]
        if not end_ids:
            raise ConfigError(f"{directory / TOKENIZER} has none of {', '.join(names)}: it needs a closing token")
        self.end = int(end_ids[0])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as token ids, without the closing token."""
        return [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        """Decode token ids; bytes that are no whole character become the replacement character U+FFFD."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class CausalLm(nn.Module):
    """A causal language model with the `forward` that the trainer calls."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Score texts, (B, T).

        Returns:
            `nats`, the negative log-likelihood of every target (B, T), 0 where `target` is -100; and their mean `loss`.
        """
        logits = self.body(input_ids=input_ids, use_cache=False).logits.float()
        nats = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="none")
        return {"loss": nats.sum() / (target != -100).sum().clamp(min=1), "nats": nats.view_as(target)}

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
        """Generate tokens until the closing token, with a key-value cache; time is O(tokens × context).

        When the context is full, its second half is encoded again, so that no position exceeds those of training.

        Args:
            prompt: token ids, at least one.
            most: largest number of tokens to generate.
            temperature: divisor of the logits; 0 takes the most probable token.
            top_p: probability mass that is sampled from (nucleus sampling).
            generator: random generator of the sampling.
            end: id of the closing token, which is not yielded.
            context_length: tokens that the model reads at once.
        """
        device = next(self.body.parameters()).device
        context = list(prompt)[-context_length:]
        ids = torch.tensor([context], device=device)
        # The cache of the first call contains a learned prefix already: later calls go to the base model.
        base_model = getattr(self.body, "get_base_model", lambda: self.body)()
        output = self.body(input_ids=ids, use_cache=True)
        for count in range(most):
            token = _sample(output.logits[0, -1].float().cpu(), temperature, top_p, generator)
            if token == end:
                return
            yield token
            context.append(token)
            if len(context) > context_length:
                context = context[-(context_length // 2) :]
                output = self.body(input_ids=torch.tensor([context], device=device), use_cache=True)
            elif count + 1 < most:
                ids = torch.tensor([[token]], device=device)
                output = base_model(input_ids=ids, past_key_values=output.past_key_values, use_cache=True)


def _sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = torch.sort(
        torch.softmax((logits.double() - logits.max()) / temperature, dim=0), descending=True, stable=True
    )
    kept = int((probabilities.cumsum(0) < top_p).sum()) + 1
    renormalised = probabilities[:kept] / probabilities[:kept].sum()
    return int(order[int(torch.multinomial(renormalised, 1, generator=generator))])


def open_body(directory: Path, loading: Mapping[str, Any] | None = None) -> nn.Module:
    """Load a language model from a directory; `loading` are arguments of `from_pretrained`, see `Strategy.loading`."""
    from transformers import AutoModelForCausalLM

    network: nn.Module = AutoModelForCausalLM.from_pretrained(
        str(directory), local_files_only=True, attn_implementation="sdpa", dtype=torch.float32, **(loading or {})
    )
    return network
