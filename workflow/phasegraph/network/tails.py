"""What may be said of the tail of the edges' weights, and no more.

Nearly every heavy tail looks straight on logarithmic axes, and a fitted exponent alone says nothing: samples of a
lognormal give exponents of 2 to 2.6. So the tail is sought and fitted as Clauset, Shalizi and Newman do (SIAM Rev. 51,
2009), and a power law is named only if 50 edges are in it and the likelihood-ratio tests prefer it to the exponential
and the lognormal distribution, without preferring a power law with an exponential cutoff to it. Such a preference is
relative: none of the distributions need be a good one.

A lognormal of great width is a power law within any sample, so that the test against it is undecided where the weights
are from a power law indeed: of 104 Pareto samples of 375 or 3,000 none was called a power law, and no other sample was.
Of 128 lognormal ones, 5 were called a truncated power law, as befits a level of 5 %.
"""

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from phasegraph.network.graph import are_components, between_components, read_edges, read_mask, read_nodes
from phasegraph.network.tables import write_table
from phasegraph.series.used import used_files
from phasegraph.spread import spread_out

CHECKPOINTS = 8
"""How many are fitted, evenly spread over the run: those of the report's figure."""
LEAST = 50
"""Edges in a tail that is fitted."""
MOST_STARTS = 5000
"""Weights up to which each of them is tried as the beginning of the tail; of more, `STARTS` are."""
STARTS = 200
"""Beginnings that are tried in larger graphs: of tails of `LEAST` to all edges, evenly on a logarithmic scale."""
ALPHA = 0.05
"""Level of the likelihood-ratio tests."""

TOO_FEW = "too few"
NOT_HEAVY = "not heavier than exponential"
UNDECIDED = "power law not distinguishable from lognormal"
LOGNORMAL = "lognormal rather than power law"
TRUNCATED = "truncated power law"
POWER_LAW = "power law"


class Comparison(NamedTuple):
    """A likelihood-ratio test of two fitted distributions."""

    statistic: float = np.nan
    """Difference of the log-likelihoods, positive if the first is the likelier."""
    p_value: float = np.nan
    """That a difference this large is chance (Vuong, Econometrica 57, 1989; for nested ones from chi-square)."""

    def prefers_first(self) -> bool:
        """Whether the first is significantly better."""
        return self.statistic > 0 and self.p_value < ALPHA

    def prefers_second(self) -> bool:
        """Whether the second is significantly better."""
        return self.statistic < 0 and self.p_value < ALPHA


class Tail(NamedTuple):
    """What is known of the tail of a checkpoint's weights."""

    n: int
    """Number of edges with a positive weight."""
    n_tail: int
    """How many of them are in the tail."""
    xmin: float
    """Where the tail begins; NaN if there are fewer than two different weights."""
    alpha: float
    """Exponent of the density w^-alpha; NaN unless the verdict is "power law"."""
    standard_error: float
    """Of alpha, (alpha - 1) / sqrt(n_tail); NaN with it."""
    lognormal: Comparison
    """Power law against lognormal."""
    exponential: Comparison
    """Power law against exponential."""
    truncated: Comparison
    """Power law against the truncated power law w^-a exp(-b w), which includes it; never positive but by rounding."""
    verdict: str
    """One of the constants of this module."""


def fit_tails(edges: list[Path], manifest: Path, nodes: Path, mask: Path, out: Path) -> None:
    """Fit the tails of the total effects between components at checkpoints that are spread over the run.

    Parameters
    ----------
    edges
        ``edges/<step>.npy`` of all checkpoints, in any order.
    manifest
        ``series.tsv``; checkpoints that it leaves out do not count.
    nodes, mask
        ``nodes.tsv`` and ``mask.npy``.
    out
        ``tails.parquet`` to write, one row per step: step, n, n_tail, xmin, alpha, standard_error, verdict, and
        statistic_<other> and p_<other> for ``lognormal``, ``exponential`` and ``truncated``; see `Tail`.

    Raises
    ------
    PhasegraphError
        If an input is not what it should be.
    """
    paths = used_files(edges, manifest)
    listed = read_nodes(nodes)
    possible = read_mask(mask, len(listed))
    inner = between_components(possible, are_components(listed))
    rows = []
    for place in spread_out(len(paths), CHECKPOINTS):
        tail = fit_tail(read_edges(paths[place], possible, listed)[0, inner])
        found = {name: value for name, value in tail._asdict().items() if not isinstance(value, Comparison)}
        for name in ("lognormal", "exponential", "truncated"):
            found |= {f"statistic_{name}": getattr(tail, name).statistic, f"p_{name}": getattr(tail, name).p_value}
        step = int(paths[place].stem)
        rows.append({"step": step} | found)
        print(f"phasegraph: step {step}: {tail_sentence(tail)}", file=sys.stderr, flush=True)
    write_table(pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None)), out)


def fit_tail(weights: np.ndarray) -> Tail:
    """Find and test the tail of a distribution.

    Parameters
    ----------
    weights
        [E], not negative; zeros have no place in a tail.

    Returns
    -------
    Tail
        Fitted by maximum likelihood, the exponent being 1 + n / sum log(w / xmin).

    Notes
    -----
    The alternatives and the tests are those of Alstott, Bullmore & Plenz (PLoS ONE 9, 2014), the package powerlaw. It
    is given the weights in units of xmin, on which its optimiser works best, and leave to fit exponents above 3: by
    default it stops there and then rejects a steeper power law. `tail_start` finds xmin, because powerlaw would look at
    every weight, one fit each, and at none with a steeper tail.
    """
    weights = np.sort(weights[weights > 0])
    start = tail_start(weights)
    if start is None:
        return _unfitted(len(weights), 0, np.nan)
    tail = weights[start:] / weights[start]
    if len(tail) < LEAST:
        return _unfitted(len(weights), len(tail), float(weights[start]))
    import powerlaw  # here, since it loads all of pyplot and the report wants the names of the verdicts only

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exponents near 1 and widths near 0, which are what is fitted
        fit = powerlaw.Fit(tail, xmin=1.0, parameter_ranges={"alpha": [0, None]}, verbose=0)
        lognormal, exponential, truncated, truncated_to_lognormal = (
            Comparison(*map(float, fit.distribution_compare(*pair)))
            for pair in (
                ("power_law", "lognormal"),
                ("power_law", "exponential"),
                ("power_law", "truncated_power_law"),
                ("truncated_power_law", "lognormal"),
            )
        )
    verdict = judge(lognormal, exponential, truncated, truncated_to_lognormal)
    alpha = exponent(tail) if verdict == POWER_LAW else np.nan
    error = (alpha - 1) / np.sqrt(len(tail))
    start_weight = float(weights[start])
    return Tail(len(weights), len(tail), start_weight, alpha, error, lognormal, exponential, truncated, verdict)


def exponent(tail: np.ndarray) -> float:
    """Exponent of a power law by maximum likelihood (Clauset et al., eq. 3.1), of weights in units of the smallest."""
    return float(1 + len(tail) / np.log(tail).sum())


def tail_start(weights: np.ndarray) -> int | None:
    """Find where the tail begins that is most like a power law, by the Kolmogorov-Smirnov distance.

    Parameters
    ----------
    weights
        [n], positive, ascending.

    Returns
    -------
    int or None
        Place of the tail's first weight; None if there are fewer than two different ones. Every weight but the largest
        is tried, in larger samples than `MOST_STARTS` a fixed grid of `STARTS`.
    """
    logs = np.log(weights)
    if len(weights) > MOST_STARTS:
        sizes = np.geomspace(len(weights), LEAST, STARTS).round().astype(int)
        starts = np.searchsorted(weights, weights[len(weights) - sizes])  # the first of those that tie
    else:
        starts = np.flatnonzero(np.diff(weights, prepend=0) > 0)
    starts = np.unique(starts[weights[starts] < weights[-1]]) if len(weights) else []
    distances = [_kolmogorov_smirnov(logs[start:] - logs[start]) for start in starts]
    return int(starts[np.argmin(distances)]) if distances else None


def judge(
    lognormal: Comparison, exponential: Comparison, truncated: Comparison, truncated_to_lognormal: Comparison
) -> str:
    """Say what the tests allow to be said of a tail.

    Parameters
    ----------
    lognormal, exponential, truncated
        The power law against each.
    truncated_to_lognormal
        The truncated power law against the lognormal.

    Returns
    -------
    str
        "not heavier than exponential" unless the power law is significantly better than that; "truncated power law" if
        the power law is rejected in favour of it, and it is better than the lognormal; "power law" if that is better
        than the lognormal, and not rejected; "lognormal rather than power law" if the lognormal is better than it;
        otherwise "power law not distinguishable from lognormal".
    """
    if not exponential.prefers_first():
        return NOT_HEAVY
    if truncated.prefers_second() and truncated_to_lognormal.prefers_first():
        return TRUNCATED
    if lognormal.prefers_first() and not truncated.prefers_second():
        return POWER_LAW
    return LOGNORMAL if lognormal.prefers_second() else UNDECIDED


def tail_sentence(tail: Tail) -> str:
    """Say in words what the tail has earned."""
    among = f"{tail.n_tail} of {tail.n} edges"
    if tail.verdict == TOO_FEW:
        return f"The tail is not judged: {among} are too few, {LEAST} are needed."
    against = f"(p = {tail.lognormal.p_value:.2g}; {among})"
    if tail.verdict == NOT_HEAVY:
        return f"Not shown to be heavier than exponential (p = {tail.exponential.p_value:.2g}; {among})."
    if tail.verdict == POWER_LAW:
        return (
            f"Heavier than exponential; a power law of exponent {tail.alpha:.2f} ± {tail.standard_error:.2f} "
            f"describes it better than a lognormal {against}, and a cutoff does not improve it."
        )
    if tail.verdict == TRUNCATED:
        cutoff = f"(p = {tail.truncated.p_value:.2g}; {among})"
        return (
            "Heavier than exponential; a power law with an exponential cutoff describes it better than one without "
            f"{cutoff}, and than a lognormal."
        )
    if tail.verdict == LOGNORMAL:
        return f"Heavier than exponential; a lognormal describes it better than a power law {against}."
    return f"Heavier than exponential; a power law is not distinguishable from a lognormal {against}."


def _kolmogorov_smirnov(logs: np.ndarray) -> float:
    """Distance of a tail, log(w / xmin) ascending from 0, from the power law that is fitted to it."""
    count = len(logs)
    fitted = -np.expm1(-logs * (count / logs.sum()))
    steps = np.arange(count + 1) / count
    return float(max((fitted - steps[:-1]).max(), (steps[1:] - fitted).max()))


def _unfitted(n: int, n_tail: int, xmin: float) -> Tail:
    return Tail(n, n_tail, xmin, np.nan, np.nan, Comparison(), Comparison(), Comparison(), TOO_FEW)
