"""Bi-encoder: one text encoder, trained with a contrastive loss on pairs that belong together.

Legend of shapes: B pairs, K different answers in the batch, T tokens, D width.
Source: Henderson et al., Efficient Natural Language Response Suggestion, 2017 (negatives are the batch's others).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.families.language.encoder import EncoderConfig, by_length


@dataclass(frozen=True)
class BiEncoderConfig(EncoderConfig):
    """A pretrained encoder that learns from pairs.

    Attributes:
        temperature: that cosines are divided by in the loss.
        hard_negatives: wrong answers beside each pair, drawn from those that the pretrained model finds nearest.
        hardest: how many of the nearest they are drawn from.
    """

    temperature: float
    hard_negatives: int
    hardest: int

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be positive")
        if not 0 <= self.hard_negatives <= self.hardest:
            raise ValueError(f"hard_negatives={self.hard_negatives} must lie within 0…hardest={self.hardest}")


class BiEncoder(nn.Module):
    """One encoder for questions and answers."""

    def __init__(self, encoder: Any, temperature: float, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.dropout = nn.Dropout(dropout)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode, (B, T) → (B, D) of length one."""
        return nn.functional.normalize(self.dropout(by_length(self.encoder, input_ids, attention_mask)), dim=1)

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
            input_ids: of the questions, (B, T).
            attention_mask: of them.
            answer_ids: of the different answers, (K, T).
            answer_mask: of them.
            target: (B,) which answer a pair has.
            also_right: (B, K) further answers that are right for a question: they count neither way.

        Returns:
            The loss: cross-entropy from question to answer and back, halved; and the `logits`, (B, K).
        """
        question, answer = self.encode(input_ids, attention_mask), self.encode(answer_ids, answer_mask)
        logits = (question @ answer.T / self.temperature).float()
        there = nn.functional.cross_entropy(logits.masked_fill(also_right, -torch.inf), target)
        rows = torch.arange(len(target), device=target.device)
        right = also_right[:, target].T.clone()  # (B, B): other questions that this pair's answer is right for
        same = target[:, None] == target[None]
        right |= same & (rows[:, None] != rows[None])
        back = nn.functional.cross_entropy(logits[:, target].T.masked_fill(right, -torch.inf), rows)
        return {"loss": (there + back) / 2, "logits": logits}
