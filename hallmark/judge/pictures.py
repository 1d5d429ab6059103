"""Matplotlib plots of an evaluation, saved as PNG; the same numbers give the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array

OURS_COLOR, OTHER_COLOR, INK = "#1b6ca8", "#b8b8b8", "#222222"


def _axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})
    figure, axes = plt.subplots(1, columns, figsize=(width, height), constrained_layout=True, squeeze=False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_fans(
    path: Path, fans: Sequence[Mapping[str, Any]], minutes: Sequence[int], levels: Sequence[float], unit: str
) -> None:
    """Draw forecast fans: each has title, past (C,), target (H,), mean (H,), quantiles (H, Q), step_minutes."""
    figure, axes = _axes(4.2 * len(fans), 3.2, len(fans))
    hours = np.asarray(minutes) / 60
    for axis, fan in zip(axes[0], fans, strict=True):
        past = np.asarray(fan["past"])
        axis.plot((np.arange(len(past)) - len(past) + 1) * fan["step_minutes"] / 60, past, color=INK, lw=1)
        quantiles = np.asarray(fan["quantiles"])
        for low in range(len(levels) // 2):
            axis.fill_between(hours, quantiles[:, low], quantiles[:, -1 - low], color=OURS_COLOR, alpha=0.18, lw=0)
        axis.plot(hours, fan["mean"], color=OURS_COLOR, lw=1.4, label="forecast")
        axis.plot(hours, fan["target"], color=INK, lw=0.8, ls=":", label="observed")
        axis.axvline(0, color=OTHER_COLOR, lw=0.8)
        axis.set(title=str(fan["title"]).replace("$", r"\$"), xlabel="hours", ylabel=unit)
    axes[0][0].legend(frameon=False)
    _save(figure, path)


def draw_calibration(path: Path, nominal: Sequence[float], measured: Mapping[str, Sequence[float]]) -> None:
    """Draw measured against nominal coverage, one line per horizon."""
    figure, axes = _axes(4.2, 3.6)
    axis = axes[0][0]
    axis.plot([0, 1], [0, 1], color=OTHER_COLOR, lw=1)
    for name, values in measured.items():
        axis.plot(nominal, values, marker="o", ms=4, label=name)
    axis.set(xlabel="nominal coverage", ylabel="measured coverage", xlim=(0.4, 1), ylim=(0.4, 1))
    axis.legend(frameon=False, title="minutes")
    _save(figure, path)


def draw_errors(path: Path, summary: pd.DataFrame, columns: Sequence[str], unit: str) -> None:
    """Draw the RMSE of every model with its bootstrap interval, one panel per horizon."""
    figure, axes = _axes(2.6 * len(columns), 3.2, len(columns))
    rows = summary[(summary["metric"] == "rmse") & (summary["segment"] == "held_out")]
    for axis, column in zip(axes[0], columns, strict=True):
        shown = rows[rows["horizon_or_split"] == column].sort_values("mean", ascending=False)
        colors = [OURS_COLOR if model == "hallmark" else OTHER_COLOR for model in shown["model"]]
        axis.barh(shown["model"], shown["mean"], color=colors)
        axis.hlines(shown["model"], shown["low"], shown["high"], color=INK, lw=1)
        axis.set(title=f"{column} min", xlabel=f"RMSE, {unit}")
    _save(figure, path)


def draw_gains(path: Path, gains: pd.Series, label: str) -> None:
    """Draw one bar per subject, sorted by value; negative values are improvements."""
    figure, axes = _axes(5.2, 3.2)
    axis = axes[0][0]
    values = np.sort(gains.to_numpy(dtype=float))
    axis.bar(np.arange(len(values)), values, color=np.where(values <= 0, OURS_COLOR, "#c0504d"))
    axis.axhline(0, color=INK, lw=0.8)
    axis.set(xlabel="subject, sorted", ylabel=label)
    _save(figure, path)


def draw_grid(path: Path, reference: Array, predicted: Array, zone: Array, title: str, unit: str) -> None:
    """Scatter predictions against observed values, (N,) each, coloured by zone 0…4."""
    figure, axes = _axes(4.2, 4.0)
    axis = axes[0][0]
    colors = np.array(["#4c9f70", "#9ccc65", "#f0b429", "#e8743b", "#b3261e"])
    axis.scatter(reference, predicted, s=3, c=colors[zone], lw=0)
    axis.plot([0, 400], [0, 400], color=OTHER_COLOR, lw=0.8)
    axis.set(title=title, xlabel=f"observed, {unit}", ylabel=f"forecast, {unit}", xlim=(0, 400), ylim=(0, 400))
    _save(figure, path)


def draw_reliability(path: Path, count: Array, confidence: Array, right: Array) -> None:
    """Draw the accuracy of a classifier against its confidence.

    Args:
        path: the PNG file.
        count: number of predictions in each bin of confidence, (bins,).
        confidence: sum of their confidence, (bins,).
        right: number of right predictions, (bins,).
    """
    not_empty = count > 0
    confidence, accuracy = confidence[not_empty] / count[not_empty], right[not_empty] / count[not_empty]
    figure, axes = _axes(4.2, 3.6)
    axis = axes[0][0]
    axis.plot([0, 1], [0, 1], color=OTHER_COLOR, lw=1)
    axis.scatter(confidence, accuracy, s=8 + 200 * count[not_empty] / count.max(), color=OURS_COLOR, alpha=0.8)
    low = min(float(confidence.min()), float(accuracy.min())) - 0.05
    axis.set(xlabel="confidence", ylabel="share right", xlim=(low, 1.02), ylim=(low, 1.02))
    _save(figure, path)


def draw_confusion(path: Path, counts: Array, labels: Sequence[str]) -> None:
    """Draw a confusion matrix, (L, L): right labels in rows, predicted ones in columns, shaded by share of the row."""
    size = 1.6 + 0.9 * len(labels)
    figure, axes = _axes(size + 0.6, size)
    axis = axes[0][0]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        text = f"{counts[row, column]:,}\n{shares[row, column]:.1%}"
        axis.text(column, row, text, ha="center", va="center", color="white" if shares[row, column] > 0.6 else INK)
    axis.set(xlabel="predicted", ylabel="right", xticks=range(len(labels)), yticks=range(len(labels)))
    axis.set_xticklabels(labels)
    axis.set_yticklabels(labels)
    _save(figure, path)


def draw_learning(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw the loss on valid against the training step (or the number of trees), one line per candidate."""
    figure, axes = _axes(5.2, 3.2)
    axis = axes[0][0]
    for name, curve in curves.items():
        axis.plot([step for step, _ in curve], [loss for _, loss in curve], marker="o", ms=2.5, lw=1.2, label=name)
    axis.set(xlabel="step", ylabel="loss on valid")
    axis.legend(frameon=False)
    _save(figure, path)


def draw_residuals(path: Path, forecast: Array, residual: Array, unit: str, title: str) -> None:
    """Draw residuals (target minus forecast) against the forecast, and their histogram, (N,) each."""
    figure, axes = _axes(8.0, 3.2, 2)
    left, right = axes[0]
    left.scatter(forecast, residual, s=2, color=OURS_COLOR, alpha=0.35, lw=0)
    left.axhline(0, color=INK, lw=0.8)
    left.set(title=title.replace("$", r"\$"), xlabel=f"forecast, {unit}", ylabel=f"residual, {unit}")
    right.hist(residual, bins=60, color=OURS_COLOR)
    right.axvline(float(residual.mean()), color=INK, lw=0.8, ls=":")
    right.set(title=f"mean {residual.mean():+.2f}, sd {residual.std():.2f} {unit}", xlabel=f"residual, {unit}")
    _save(figure, path)


def draw_shares(path: Path, shares: Mapping[str, float], label: str) -> None:
    """Draw one bar per group, on an axis from 0 to 1."""
    figure, axes = _axes(4.2, 0.8 + 0.35 * len(shares))
    axis = axes[0][0]
    axis.barh(list(shares), list(shares.values()), color=OURS_COLOR, height=0.6)
    for i, value in enumerate(shares.values()):
        axis.text(value + 0.01, i, f"{value:.3f}", va="center", color=INK)
    axis.set(xlim=(0, 1), xlabel=label.replace("$", r"\$"))
    _save(figure, path)


def draw_bars(path: Path, panels: Mapping[str, Mapping[str, float]], label: str) -> None:
    """Draw one panel per column with one bar per model; the first model is ours."""
    figure, axes = _axes(3.2 * len(panels), 2.4, len(panels))
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        names = list(values)
        axis.barh(
            names[::-1], [values[name] for name in names[::-1]], color=[OTHER_COLOR] * (len(names) - 1) + [OURS_COLOR]
        )
        axis.set(title=title, xlabel=label)
    _save(figure, path)


def draw_changes(path: Path, changes: Mapping[str, float], label: str) -> None:
    """Draw one bar per name, to the left or right of 0."""
    figure, axes = _axes(5.6, 0.8 + 0.22 * len(changes))
    axis = axes[0][0]
    names, values = list(changes), list(changes.values())
    axis.barh(names[::-1], values[::-1], color=OURS_COLOR, height=0.6)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set(xlabel=label.replace("$", r"\$"))
    _save(figure, path)
