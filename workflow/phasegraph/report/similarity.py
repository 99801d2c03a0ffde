"""How far apart the checkpoints' wirings are by three distances, and how much of it is noise of the prompts."""

import math

import numpy as np

from phasegraph.network.distances import ENDINGS
from phasegraph.report.study import StudyData
from phasegraph.report.words import listed, number, plural

NAMES = {
    "spearman": "1 − Spearman's ρ of the weights",
    "jensen_shannon": "the Jensen-Shannon divergence of their shares (in bits)",
    "wasserstein": "the Wasserstein distance of their logarithms",
}
"""Kind of distance -> what the report calls it."""


def beyond_noise(study: StudyData, kind: str) -> tuple[int, int]:
    """Of how many pairs of checkpoints the distance is above the noise floors of both, and how many pairs are known.

    The floor is a strict limit: it is the noise of halves of the prompts, and checkpoints share their prompts.
    """
    floors = study.metric(f"noise_floor{ENDINGS[kind]}")["estimate"]
    first, second = np.triu_indices(len(study.steps), 1)
    apart, floor = study.distance(kind)[first, second], np.maximum(floors[first], floors[second])
    known = np.isfinite(apart) & np.isfinite(floor)
    return int((apart[known] > floor[known]).sum()), int(known.sum())


def similarity_texts(study: StudyData) -> list[str]:
    """Say which share of the pairs of checkpoints differ beyond noise, and how raw and excess distances compare."""
    counts = {kind: beyond_noise(study, kind) for kind in NAMES}
    if not counts["spearman"][1]:
        return []
    shares = listed(f"{_percent(*counts[kind])} by {name}" for kind, name in NAMES.items() if counts[kind][1])
    pairs = plural(counts["spearman"][1], "pair")
    text = (
        f"Further apart than the two halves of the prompts are at either of them, of {pairs} of checkpoints, are "
        f"{shares}."
    )
    churn, excess = (_median(study.metric(name)["estimate"]) for name in ("churn", "excess_churn"))
    if churn > 0:
        left = f"{max(excess / churn, 0):.0%}".replace("%", " %")
        text += (
            f" Between neighbours, 1 − ρ beyond noise has a median of {number(excess)}, {left} of the raw one; the "
            "rest is noise that the two do not share."
        )
    return [f"{text} {_factor_text(float(study.distance('wasserstein')[0, -1]))}".strip()]


def _factor_text(logarithm: float) -> str:
    """Say what a distance of logarithms means; it is the only one that sees all weights grow alike."""
    if not math.isfinite(logarithm):
        return ""
    return (
        f"The weights of the first and the last checkpoint, sorted, differ by a factor of "
        f"{number(math.exp(logarithm))} (geometric mean; Wasserstein distance {number(logarithm)}), which the other "
        "two distances do not see where all weights change alike."
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else math.nan


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.0f} %"
