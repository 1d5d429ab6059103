"""Changes of a text that keep its meaning (typos, spaces), to measure how stable a model's answers are."""

import numpy as np


def with_typo(text: str, rng: np.random.Generator) -> str:
    """Swap two neighbouring letters inside one long word; returns the text unchanged if it has no long word."""
    words = text.split(" ")
    long_words = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long_words:
        return text
    index = long_words[int(rng.integers(len(long_words)))]
    word, position = words[index], int(rng.integers(1, len(words[index]) - 2))
    words[index] = word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    return " ".join(words)


def with_typos(text: str, rng: np.random.Generator, share: float = 0.2) -> str:
    """Put a typo into a share of the lines."""
    return "\n".join(with_typo(line, rng) if rng.random() < share else line for line in text.split("\n"))


def with_spaces(text: str) -> str:
    """Double every space and every empty line."""
    return text.replace(" ", "  ").replace("\n\n", "\n\n\n")
