"""What there is to the communities: how many, how long they last, and whether they are more than strengths make."""

from itertools import pairwise

import numpy as np
import polars as pl

from phasegraph.network.communities import adjusted_rand
from phasegraph.report.beyond import BEYOND, NOTHING, UNDECIDED, standings
from phasegraph.report.words import measured, number, plural

SHOWN = 6
"""How many communities have a colour of their own."""


def frequent(labels: np.ndarray) -> list[int]:
    """List the `SHOWN` communities with the most members over the run, the largest first."""
    names, counts = np.unique(labels, return_counts=True)
    return names[np.argsort(-counts, kind="stable")][:SHOWN].tolist()


def renewal(labels: np.ndarray) -> np.ndarray:
    """Compare every partition with the one before it.

    Parameters
    ----------
    labels
        int [S, C], community of each component.

    Returns
    -------
    ndarray
        Adjusted Rand index, float64 [S]; NaN at the first.
    """
    return np.array([np.nan, *(adjusted_rand(before, after) for before, after in pairwise(labels))])


def communities_text(labels: np.ndarray, metrics: dict[str, dict[str, np.ndarray]], nulls: pl.DataFrame) -> str:
    """Say how many communities there are, whether they last, and whether they are a finding.

    Parameters
    ----------
    labels
        int [S, C], community of each component.
    metrics
        ``modularity``, ``communities`` and ``layer_agreement`` -> estimate, low and high, [S] each.
    nulls
        Table of ``nulls.parquet``.
    """
    counts = metrics["communities"]["estimate"]
    if not np.isfinite(counts).any():
        return "No weight is there to divide the components by, and so there are no communities."
    q = metrics["modularity"]
    last = plural(int(counts[-1]), "community") if np.isfinite(counts[-1]) else "no communities"
    value = measured(*(float(q[column][-1]) for column in ("estimate", "low", "high")))
    text = f"At the last checkpoint the components fall into {last} of more than one, with a modularity of {value}"
    if len(labels) > 1:
        text += f"; over the run there are {number_range(counts)}. "
        text += (
            "From one checkpoint to the next the partitions agree with an adjusted Rand index of "
            f"{number(float(np.nanmedian(renewal(labels))), 2)}, and with the layers with one of "
            f"{number(float(np.nanmedian(metrics['layer_agreement']['estimate'])), 2)} (medians over the run; 1 is the "
            "same partition, 0 as by chance)."
        )
    else:
        agreement = float(metrics["layer_agreement"]["estimate"][-1])
        text += f". It agrees with the layers with an adjusted Rand index of {number(agreement, 2)} (0: as by chance)."
    return f"{text} {_finding(nulls)}"


def number_range(counts: np.ndarray) -> str:
    """Write the smallest and the largest of some whole numbers."""
    low, high = int(np.nanmin(counts)), int(np.nanmax(counts))
    return f"{low} to {high}" if low != high else f"always {low}"


def _finding(nulls: pl.DataFrame) -> str:
    """Say whether the modularity is more than that of graphs with the same strengths."""
    found = standings(nulls)["modularity"]["ratio"]
    above, below, several = found.above, found.beyond - found.above, found.checkpoints > 1
    if found.verdict == BEYOND and above > below:
        at = f" at {above:,} of {found.checkpoints:,} checkpoints" if several else ""
        return f"Graphs of the same strengths without communities (ratio shuffle) are divided less well{at}."
    if found.verdict == NOTHING:
        how = "They were not compared with those of null graphs, or of too few"
    elif found.verdict == UNDECIDED:
        how = (
            "It is open whether graphs of the same strengths without communities (ratio shuffle) are divided less "
            f"well, as with {plural(found.draws, 'null graph')} q cannot become small enough"
        )
    elif above:
        at = f"at {above:,} of {found.checkpoints:,} checkpoints only"
        how = f"Graphs of the same strengths without communities (ratio shuffle) are divided less well {at}"
    else:
        how = "Graphs of the same strengths without communities (ratio shuffle) are divided as well"
    return f"{how}. Any graph can be divided, so these communities are a description and not a finding."
