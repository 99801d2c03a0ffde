"""How long rankings and their holders last over the run, and how much of their change the prompts alone would make.

Rankings of checkpoints that lie `lag` checkpoints apart are compared, and the mean is taken over all such pairs. The
paper's claim "stable spreaders, dynamic gatherers" becomes one number for each version of the scores: the difference
of the mean persistence of the two roles over all pairs of checkpoints, with its interval. Persistence has a ceiling,
since holders also differ between two halves of the prompts at one checkpoint; that is ``reliability``, and with half of
the prompts it is a lower bound of what the persistence would be if nothing changed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from phasegraph.jackknife import delete_group
from phasegraph.network.agreement import (
    Shared,
    corrected,
    rank_biased_overlap,
    share,
    shared_holders,
)
from phasegraph.network.roles import holders, kendall_matrix

SCHEMA = {
    "effect": pl.String,
    "role": pl.String,
    "score_kind": pl.String,
    "quantity": pl.String,
    "lag": pl.Int32,
    "chance": pl.Float64,
    "estimate": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "pairs": pl.Int32,
    "largest_lag": pl.Int32,
}
"""Columns of ``stability.parquet``, see `stability_table`."""
STABLE, DYNAMIC = "spreader", "gatherer"
"""The roles whose mean persistence is compared: the first less the second."""

Key = tuple[str, str, str]
"""Effect, role and kind of score."""


class Agreements(NamedTuple):
    """How much the rankings of all pairs of checkpoints agree, for R replicates of S checkpoints."""

    tau: np.ndarray
    """[R, S, S], Kendall's tau-b."""
    shared: Shared
    """[R, S, S] each."""
    overlap: dict[int, np.ndarray]
    """Lag -> [R, S - lag], chance-corrected rank-biased overlap, for lags that are powers of two."""
    overlap_chance: dict[int, np.ndarray]
    """Lag -> [R, S - lag], rank-biased overlap by chance."""


class _Row(NamedTuple):
    """A row of the table, before the interval is taken from its replicates."""

    key: Key
    quantity: str
    lag: int | None
    chance: float
    values: np.ndarray
    """[17], or of one value only."""
    pairs: int
    largest_lag: int | None = None


def agreements(scores: np.ndarray, k: int) -> Agreements:
    """Compare the rankings of all pairs of checkpoints.

    Parameters
    ----------
    scores
        [S, R, N], R replicates; NaN where a node is not ranked.
    k
        Number of holders.
    """
    by_replicate = np.moveaxis(scores, 1, 0)  # [R, S, N]
    replicates, steps, nodes = by_replicate.shape
    overlap, by_chance = {}, {}
    for lag in powers_of_two(steps):
        before, after = by_replicate[:, :-lag].reshape(-1, nodes), by_replicate[:, lag:].reshape(-1, nodes)
        value, chance = (found.reshape(replicates, -1) for found in rank_biased_overlap(before, after))
        overlap[lag], by_chance[lag] = corrected(value, chance), chance
    tau = np.stack([kendall_matrix(one) for one in by_replicate])
    return Agreements(tau, shared_holders(by_replicate, k), overlap, by_chance)


def powers_of_two(steps: int) -> list[int]:
    """Lags 1, 2, 4, ... below the number of checkpoints."""
    return [1 << n for n in range(max(steps - 1, 0).bit_length())]


def with_the_one_before(found: Agreements) -> dict[str, np.ndarray]:
    """Agreement of each checkpoint's ranking with that of the one before, [S, R] each; NaN at the first."""
    replicates, steps = found.tau.shape[:2]
    series = {"tau": _diagonal(found.tau, 1), "jaccard": _diagonal(found.shared.jaccard, 1)}
    series["rbo"] = found.overlap.get(1, np.empty((replicates, 0)))
    padded = {name: np.full((steps, replicates), np.nan) for name in series}
    for name, values in series.items():
        padded[name][1:] = values.T
    return padded


def reliability(halves: np.ndarray, k: int) -> tuple[float, float, int]:
    """How far the holders agree between two halves of the prompts at the same checkpoint.

    Parameters
    ----------
    halves
        [S, 2, K, N], scores of both halves in K splits of the prompts; NaN where a node is not ranked.
    k
        Number of holders.

    Returns
    -------
    estimate, chance
        Mean chance-corrected probability that a holder by one half is a holder by the other, and its chance level.
    count
        Number of checkpoints at which it is known for every split.
    """
    top, there = holders(halves, k), np.isfinite(halves)
    first, second = top[:, 0], top[:, 1]  # [S, K, N]
    found = share((first & second).sum(-1), first.sum(-1), second.sum(-1), there.any(1).sum(-1))  # [S, K]
    known = np.isfinite(found.persistence).all(-1)
    return _mean(found.persistence[known]), _mean(found.persistence_chance[known]), int(known.sum())


def stability_table(by_key: dict[Key, Agreements], reliable: dict[Key, tuple[float, float, int]]) -> pl.DataFrame:
    """Make the table of ``stability.parquet``.

    Parameters
    ----------
    by_key
        Effect, role and kind of score -> `agreements`.
    reliable
        The same -> `reliability`.

    Returns
    -------
    polars.DataFrame
        Columns `SCHEMA`. Estimates are means over those pairs of checkpoints at which the quantity is known in all
        replicates, and ``pairs`` counts them; all but tau are corrected for ``chance``, the level before. One row per
        lag of ``tau`` and ``rbo`` (powers of two) and of ``jaccard`` and ``persistence`` (all lags). Without a lag:

        - ``mean_persistence``, over all pairs;
        - ``half_life``, the first lag at which the mean Jaccard index is below half of that at lag 1; null if it is at
          none up to ``largest_lag``, and without an interval if it is at none in a replicate;
        - ``reliability``, without an interval; its pairs are halves of the prompts, one pair a checkpoint;
        - ``mean_persistence`` of the role ``spreader-gatherer``: the difference, and the interval of the difference.
    """
    rows = [row for key, found in by_key.items() for row in _rows(key, found)]
    rows += [_Row(key, "reliability", None, chance, np.array([value]), count)
             for key, (value, chance, count) in reliable.items()]  # fmt: skip
    rows += _differences({row.key: row for row in rows if row.quantity == "mean_persistence"})
    records = []
    for row in rows:
        interval = delete_group(row.values, smooth=False) if len(row.values) > 1 else None
        low, high = (interval.low, interval.high) if interval else (np.nan, np.nan)
        found = (row.lag, row.chance, row.values[0], low, high, row.pairs, row.largest_lag)
        records.append((*row.key, row.quantity, *found))
    return pl.DataFrame(records, schema=SCHEMA, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def _rows(key: Key, found: Agreements) -> Iterator[_Row]:
    """Rows of one ranking."""
    steps, shared = found.tau.shape[1], found.shared
    for lag in found.overlap:
        yield _row(key, "tau", lag, _diagonal(found.tau, lag))
        yield _row(key, "rbo", lag, found.overlap[lag], found.overlap_chance[lag])
    jaccard = np.full((steps, len(found.tau)), np.nan)  # [lag, R]
    for lag in range(1, steps):
        row = _row(key, "jaccard", lag, _diagonal(shared.jaccard, lag), _diagonal(shared.jaccard_chance, lag))
        jaccard[lag] = row.values
        yield row
    for lag in range(1, steps):
        chance = _diagonal(shared.persistence_chance, lag)
        yield _row(key, "persistence", lag, _diagonal(shared.persistence, lag), chance)
    above = np.triu_indices(steps, 1)
    mean = _row(key, "mean_persistence", None, shared.persistence[:, *above], shared.persistence_chance[:, *above])
    yield mean
    yield _Row(key, "half_life", None, np.nan, half_life(jaccard[1:]), mean.pairs, steps - 1)


def half_life(by_lag: np.ndarray) -> np.ndarray:
    """First lag at which a quantity [lags, R] is below half of what it is at lag 1, [R]; NaN if at none, or 0 at 1."""
    if not len(by_lag):
        return np.full(by_lag.shape[1], np.nan)
    below = by_lag < by_lag[0] / 2
    return np.where((by_lag[0] > 0) & below.any(0), below.argmax(0) + 1, np.nan)


def _row(key: Key, quantity: str, lag: int | None, values: np.ndarray, chance: np.ndarray | None = None) -> _Row:
    """Mean over those pairs of checkpoints, the columns of [R, pairs], that are known in all replicates."""
    known = np.isfinite(values).all(0)
    means = values[:, known].mean(1) if known.any() else np.full(len(values), np.nan)
    return _Row(key, quantity, lag, np.nan if chance is None else _mean(chance[0, known]), means, int(known.sum()))


def _differences(mean_persistence: dict[Key, _Row]) -> Iterator[_Row]:
    """Mean persistence of spreaders less that of gatherers, for each effect and kind of score that both have."""
    for (effect, role, kind), row in mean_persistence.items():
        other = mean_persistence.get((effect, DYNAMIC, kind))
        if role == STABLE and other:
            pairs = min(row.pairs, other.pairs)
            key = (effect, f"{STABLE}-{DYNAMIC}", kind)
            yield _Row(key, row.quantity, None, np.nan, row.values - other.values, pairs)


def _diagonal(matrices: np.ndarray, lag: int) -> np.ndarray:
    """Pairs that lie `lag` apart, [R, S - lag], of [R, S, S]."""
    return np.diagonal(matrices, lag, 1, 2)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan
