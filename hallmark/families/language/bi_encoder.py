"""Bi-encoder: one text encoder, trained with a contrastive loss on pairs of a question and its answer.

Legend of shapes: B pairs, K different answers in the batch, T tokens, D width.
Source: Henderson et al., Efficient Natural Language Response Suggestion, 2017 (in-batch negatives).
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hallmark.build import Positive, configuration
from hallmark.families.language.encoder import EncoderConfig, encode_by_length


@configuration
class BiEncoderConfig(EncoderConfig):
    """A pretrained encoder that is fine-tuned on pairs.

    Attributes:
        temperature: divisor of the cosines in the loss.
        hard_negatives: wrong answers added per pair, sampled from those that the pretrained model ranks nearest.
        hardest: how many of the nearest wrong answers are sampled from.
    """

    temperature: Positive
    hard_negatives: Annotated[int, Field(ge=0)]
    hardest: int

    def __post_init__(self) -> None:
        if self.hard_negatives > self.hardest:
            raise ValueError(f"hard_negatives={self.hard_negatives} must lie within 0…hardest={self.hardest}")


class BiEncoder(nn.Module):
    """One encoder for questions and answers."""

    def __init__(self, encoder: Any, temperature: float, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.dropout = nn.Dropout(dropout)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts, (B, T) → (B, D), as vectors of length one."""
        return nn.functional.normalize(self.dropout(encode_by_length(self.encoder, input_ids, attention_mask)), dim=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        target: Tensor,
        also_right: Tensor,
    ) -> dict[str, Tensor]:
        """Score every question against every answer of the batch.

        Args:
            input_ids: token ids of the questions, (B, T).
            attention_mask: mask of the questions, (B, T).
            answer_ids: token ids of the different answers, (K, T).
            answer_mask: mask of the answers, (K, T).
            target: (B,) index of each pair's answer.
            also_right: (B, K) true for further right answers of a question, which the loss excludes.

        Returns:
            `loss`, the mean of the cross-entropies question → answer and answer → question; and `logits`, (B, K).
        """
        question, answer = self.encode(input_ids, attention_mask), self.encode(answer_ids, answer_mask)
        logits = (question @ answer.T / self.temperature).float()
        to_answer = nn.functional.cross_entropy(logits.masked_fill(also_right, -torch.inf), target)
        rows = torch.arange(len(target), device=target.device)
        excluded = also_right[:, target].T.clone()  # (B, B): other questions with this right answer
        same_answer = target[:, None] == target[None]
        excluded |= same_answer & (rows[:, None] != rows[None])
        to_question = nn.functional.cross_entropy(logits[:, target].T.masked_fill(excluded, -torch.inf), rows)
        return {"loss": (to_answer + to_question) / 2, "logits": logits}
