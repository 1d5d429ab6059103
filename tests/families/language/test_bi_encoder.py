"""The loss of pairs is what it says, and what is also right is not pushed away."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.families.language.bi_encoder import BiEncoder


class Table(nn.Module):
    """An encoder that looks vectors up by the first token."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))
        self.width = len(rows[0])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.rows[input_ids[:, 0]]


def ids(*numbers: int) -> dict[str, Any]:
    tokens = torch.tensor(numbers)[:, None]
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def loss(
    model: BiEncoder, questions: list[int], answers: list[int], target: list[int], also: list[list[bool]]
) -> float:
    mine, theirs = ids(*questions), ids(*answers)
    found = model(
        **mine,
        answer_ids=theirs["input_ids"],
        answer_mask=theirs["attention_mask"],
        target=torch.tensor(target),
        also_right=torch.tensor(also),
    )
    return float(found["loss"].detach())


MODEL = BiEncoder(Table([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), 0.5, 0.0)  # type: ignore[arg-type]


def test_the_loss_is_the_mean_of_both_directions() -> None:
    right, wrong = math.exp(1 / 0.5), math.exp(0)
    expected = -math.log(right / (right + wrong))
    measured = loss(MODEL, [0, 1], [2, 3], [0, 1], [[False, False], [False, False]])
    assert abs(measured - expected) < 1e-6


def test_a_negative_counts_from_question_to_answer_alone() -> None:
    half = math.exp(math.sqrt(0.5) / 0.5)
    right, wrong = math.exp(1 / 0.5), math.exp(0)
    there, back = -math.log(right / (right + wrong + half)), -math.log(right / (right + wrong))
    measured = loss(MODEL, [0, 1], [2, 3, 4], [0, 1], [[False] * 3, [False] * 3])
    assert abs(measured - (there + back) / 2) < 1e-6


def test_an_answer_that_is_also_right_is_no_negative() -> None:
    alone = loss(MODEL, [0], [2], [0], [[False]])
    assert abs(loss(MODEL, [0], [2, 4], [0], [[False, True]]) - alone) < 1e-6


def test_two_questions_of_one_answer_are_no_negatives_of_each_other() -> None:
    assert abs(loss(MODEL, [0, 2], [2], [0, 0], [[False], [False]])) < 1e-6
