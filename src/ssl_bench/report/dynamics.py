"""The decoupled dynamics of Tian, Chen & Ganguli 2021 (DirectPred), simulated: what lets a linear predictor learn.

A linear network W with a symmetric linear predictor W_p follows a teacher W_a = τW on data of variance 1, which
augmentation widens by σ². Gradient flow of ½ E‖W_p W x₁ − sg(W_a x₂)‖² with weight decay η, with F = W Wᵀ:

    Ẇ_p = α_p (−(1+σ²)/2 {W_p, F} + τF) − η W_p,    Ḟ = −(1+σ²) {W_p², F} + τ {W_p, F} − 2ηF

Once W_p and F have the same eigenvectors, each eigenvalue p of W_p and s of F moves by itself:

    ṗ = α_p s (τ − (1+σ²)p) − ηp,    ṡ = 2ps (τ − (1+σ²)p) − 2ηs,    τ̇ = β(1 − τ) − τṡ / 2s

They come to have the same ones where the commutator L = [F, W_p] vanishes: L̇ = −KL, and K has the eigenvalues k_j + k_l
with k = (1+σ²)p² − τp + α_p(1+σ²)s/2 + 3η/2, which should be above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_bench.files import csv_text, write_text
from ssl_bench.report import render
from ssl_bench.report.comparison import Table, TableCell

VARIED = {"η": ("weight_decay", "weight_decays"), "β": ("beta", "betas")}
QUANTITIES = ("p", "s", "τ", "k")
NAMES = {"p": "p, of the predictor", "s": "s, of the features", "k": "k, of the alignment"}
HEADING = ("varied", "value", "step", *QUANTITIES)
ALIKE = 0.01  # share of its limit within which a curve has arrived
POINTS = 200  # of a curve in results.csv
EARLY = 400  # a step while predictor and features are still coming to have the same eigenvectors


def rates(p: float, s: float, tau: float, settings: Mapping[str, Any]) -> tuple[float, float, float]:
    """Derivatives of p, s and τ."""
    wide, eta = 1 + settings["noise"], settings["weight_decay"]
    gap = tau - wide * p
    ds = 2 * p * s * gap - 2 * eta * s
    return (
        settings["predictor_rate"] * s * gap - eta * p,
        ds,
        settings["beta"] * (1 - tau) - (tau * ds / (2 * s) if s > 0 else 0.0),
    )


def alignment(p: Any, s: Any, tau: Any, settings: Mapping[str, Any]) -> Any:
    """k, of which K's eigenvalues are sums of two."""
    wide = 1 + settings["noise"]
    return wide * p**2 - tau * p + settings["predictor_rate"] * wide * s / 2 + 1.5 * settings["weight_decay"]


def reached(settings: Mapping[str, Any]) -> float:
    """The limit of p, if p and s are not too small at the start: 0 where weight decay is too strong."""
    wide = 1 + settings["noise"]
    root = 1 - 4 * wide * settings["weight_decay"]
    return 0.0 if root < 0 else float((1 + root**0.5) / (2 * wide))


def simulated(settings: Mapping[str, Any]) -> NDArray[np.float64]:
    """QUANTITIES at every step, ``[steps + 1, 4]``."""
    p, s, tau = settings["predictor"], settings["correlation"], settings["teacher"]
    path = [(p, s, tau)]
    for _ in range(settings["steps"]):
        dp, ds, dtau = rates(p, s, tau, settings)
        p, s, tau = p + settings["step"] * dp, s + settings["step"] * ds, tau + settings["step"] * dtau
        path.append((p, s, tau))
    found = np.array(path)
    return np.column_stack([found, alignment(found[:, 0], found[:, 1], found[:, 2], settings)])


def curves(settings: Mapping[str, Any]) -> dict[tuple[str, float], NDArray[np.float64]]:
    """The simulations by what is varied and its value."""
    return {
        (symbol, value): simulated({**settings, option: value})
        for symbol, (option, values) in VARIED.items()
        for value in settings[values]
    }


def table(settings: Mapping[str, Any], found: Mapping[tuple[str, float], NDArray[np.float64]]) -> Table:
    ranked = {}
    for (symbol, value), path in found.items():
        last = path[-1]
        end = reached({**settings, VARIED[symbol][0]: value})
        near = np.abs(path[:, 0] - end) <= ALIKE * max(end, ALIKE)
        arrived = f"{int(np.argmax(near)):,}" if near.any() else f"over {len(path) - 1:,}"
        below = np.flatnonzero(path[:, 3] <= 0)
        aligned = int(below[-1]) + 1 if len(below) else 0
        never = aligned == len(path)
        texts = [
            f"{last[0]:.3f}",
            f"{last[1]:.3f}",
            f"{path[min(EARLY, len(path) - 1), 3]:.3f}",
            f"over {len(path) - 1:,}" if never else f"{aligned:,}",
            arrived,
        ]
        ranked[f"{symbol} = {value:g}"] = [TableCell(text) for text in texts]
    fixed = ("step", "steps", "noise", "predictor_rate", "predictor", "correlation", "teacher")
    return Table(
        title="DirectPred: decoupled dynamics",
        columns=[
            "p at the end",
            "s at the end",
            f"k after {EARLY} steps",
            "steps until k > 0",
            "steps until p is at its limit",
        ],
        ranked=ranked,
        notes=[
            f"η is varied at β = {settings['beta']:g}, β at η = {settings['weight_decay']:g}; "
            f"{', '.join(f'{key} {settings[key]:,g}' for key in fixed)}.".replace("_", " "),
            f"The limit of p is the larger root of (1 + σ²)p² − p + η = 0, or 0 where none is real; p is at it within "
            f"{ALIKE:.0%} of it, or {ALIKE**2:g} of 0.",
            "K, by which predictor and features come to have the same eigenvectors, has sums of two k as eigenvalues.",
        ],
    )


def results(found: Mapping[tuple[str, float], NDArray[np.float64]]) -> list[tuple[object, ...]]:
    """Lines of HEADING at POINTS steps."""
    lines: list[tuple[object, ...]] = []
    for (symbol, value), path in found.items():
        for step in np.unique(np.linspace(0, len(path) - 1, POINTS).round().astype(int)):
            lines.append((symbol, f"{value:g}", step, *(f"{part:.6g}" for part in path[step])))
    return lines


def write(folder: Path, settings: Mapping[str, Any], found: Mapping[tuple[str, float], NDArray[np.float64]]) -> None:
    shown = table(settings, found)
    write_text(folder / "table.md", render.markdown(shown))
    write_text(folder / "results.csv", csv_text(HEADING, results(found)))
    picture(folder / "figure.png", shown.notes, found)


def picture(path: Path, notes: Sequence[str], found: Mapping[tuple[str, float], NDArray[np.float64]]) -> None:
    """A row of panels for each rate that is varied: p, s and k over steps."""
    from ssl_bench.report.figures import above_notes, save
    from ssl_bench.report.palette import LINES, row_colours, row_styles

    figure, above = above_notes(9.8, 5.6, notes)
    grid = above.subplots(len(VARIED), len(NAMES), squeeze=False, sharex=True)
    for symbol, panels in zip(VARIED, grid, strict=True):
        for (name, label), axes in zip(NAMES.items(), panels, strict=True):
            chosen = [(value, simulation) for (varied, value), simulation in found.items() if varied == symbol]
            rows = {f"{symbol} = {value:g}": ("method=directpred",) for value, _ in chosen}
            looks = zip(row_colours(rows).items(), row_styles(rows).values(), strict=True)
            for (_, simulation), ((text, colour), (line, _)) in zip(chosen, looks, strict=True):
                values = simulation[:, QUANTITIES.index(name)]
                axes.plot(values, color=colour, linestyle=LINES[line], linewidth=1.5, label=text)
            if name == "k":
                axes.axhline(0, color="#777777", linewidth=0.8)
            axes.set_ylabel(label, fontsize=8)
            if symbol == list(VARIED)[-1]:  # the panels above share its axis
                axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False, handlelength=4)
    above.suptitle("DirectPred: decoupled dynamics", fontsize=11, fontweight="bold")
    save(path, figure, dpi=150)
