"""Series without a change, and films of a network's weights with planted ones."""

from itertools import pairwise

import numpy as np
import polars as pl
from scipy.signal import lfilter
from scipy.stats import rankdata

from phasegraph.phases.tables import PATH_METRICS, WEIGHT_METRICS, Files

GROUPS = 16
SOURCES, TARGETS = 20, 15
BLOCKS = {f"L{i} heads > L{j} MLPs": (i, j) for i in range(2) for j in range(3)}
"""Halves of the sources and thirds of the targets."""


def noise(rng, n, d, ar=(), correlation=0.4):
    """Unit-variance noise [n, d], autocorrelated with coefficients `ar` and cross-correlated."""
    common = np.sqrt(correlation) * rng.standard_normal((n + 200, 1))
    innovations = common + np.sqrt(1 - correlation) * rng.standard_normal((n + 200, d))
    filtered = [1.0, *(-np.atleast_1d(ar))]
    power = (lfilter([1.0], filtered, np.eye(1, 2000)[0]) ** 2).sum()
    return lfilter([1.0], filtered, innovations, axis=0)[200:] / np.sqrt(power)


def film(seed, rewiring, growth=lambda i: 0.0, steps=None, kept=None):
    """A planted history of edge weights: who influences whom is redrawn at a rate, and concentration grows at a rate.

    Parameters
    ----------
    rewiring, growth
        Functions of the checkpoint: distance that the log weights move, in their standard deviations, and relative
        growth of their spread, both per unit of displacement.
    steps
        [n], training steps; 0, 4, ..., 572 if None. The displacement grows with the root of the number of steps.
    kept
        Indices of the checkpoints that were kept; all if None.

    Returns
    -------
    dict of str to ndarray
        steps, arc_length, metrics and churn [n], blocks [17, n, 6], and gini and churn of the replicates [16, n].
    """
    rng = np.random.default_rng([20, seed])
    steps = 4 * np.arange(144) if steps is None else np.asarray(steps)
    displacement = np.sqrt(np.diff(steps, prepend=steps[0]) / np.diff(steps).max())
    displacement = displacement * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(len(steps)) / len(steps))) / 2)
    logs, spread, history = rng.standard_normal(SOURCES * TARGETS), 0.8, []
    for i, moved in enumerate(displacement):
        share = min(rewiring(i) * moved, 1) ** 2  # metrics move by its root: in proportion to displacement
        logs = np.sqrt(1 - share) * logs + np.sqrt(share) * rng.standard_normal(logs.shape)
        spread *= 1 + growth(i) * moved
        history.append(np.exp(spread * logs) * np.exp(0.005 * rng.standard_normal((GROUPS, len(logs)))))
    kept = np.arange(len(steps)) if kept is None else np.asarray(kept)
    groups = np.array(history)[kept]  # [n, 16, E]
    without = (groups.sum(1, keepdims=True) - groups) / (GROUPS - 1)
    series = np.concatenate([groups.mean(1, keepdims=True), without], axis=1)  # [n, 17, E]
    half_a, half_b = groups[:, : GROUPS // 2].mean(1), groups[:, GROUPS // 2 :].mean(1)
    return {"steps": steps[kept], "arc_length": np.cumsum(displacement)[kept]} | measured(series, half_a, half_b)


def measured(series, half_a, half_b):
    """What the network stage says about weights [n, 17, E] and those of both halves of the prompts [n, E]."""
    weights = series[:, 0]
    ascending, share = np.sort(weights, axis=1), weights / weights.sum(1, keepdims=True)
    matrices = weights.reshape(-1, SOURCES, TARGETS)
    out, into = matrices.sum(2), matrices.sum(1)
    floor = np.array([spearman_distance(a, b) for a, b in zip(half_a, half_b, strict=True)])
    excess = np.array([spearman_distance(a, b) for a, b in zip(half_a[:-1], half_b[1:], strict=True)])
    churn = np.array([churns(series[:, k]) for k in range(GROUPS + 1)])  # [17, n]
    return {
        "mean_weight": weights.mean(1),
        "gini": gini(weights),
        "gini_sqrt": gini(np.sqrt(weights)),
        "n_eff_entropy": np.exp(-(share * np.log(share)).sum(1)),
        "n_eff_simpson": 1 / (share**2).sum(1),
        "top1_share": ascending[:, -3:].sum(1) / weights.sum(1),
        "top10_share": ascending[:, -30:].sum(1) / weights.sum(1),
        "gini_out_strength": gini(out),
        "gini_in_strength": gini(into),
        "efficiency": np.median(weights, axis=1) ** 1.1,
        "gini_betweenness": gini(out * into.mean(1, keepdims=True) ** 2),
        "churn": churn[0],
        "noise_floor": floor,
        "excess_churn": np.r_[np.nan, excess] - floor,
        "replicates.gini": gini(series).T[1:],
        "replicates.churn": churn[1:],
        "blocks": block_changes(series),
    }


def block_changes(series):
    """Root mean square change of the logarithms of weights [n, 17, E] by block, [17, n, 6]."""
    squares = np.diff(np.log(series), axis=0, prepend=np.nan).reshape(*series.shape[:2], SOURCES, TARGETS) ** 2
    parts = [squares[:, :, 10 * i : 10 * i + 10, 5 * j : 5 * j + 5] for i, j in BLOCKS.values()]
    return np.sqrt(np.stack([part.mean((2, 3)) for part in parts], axis=-1)).swapaxes(0, 1)


def gini(values):
    """Gini coefficient along the last axis, from the Lorenz curve's ranks."""
    n = values.shape[-1]
    return (np.sort(values) @ (2 * np.arange(1, n + 1) - n - 1)) / (n * values.sum(-1))


def churns(weights):
    """Spearman distance from the checkpoint before, [n]."""
    return np.r_[np.nan, [spearman_distance(a, b) for a, b in pairwise(weights)]]


def spearman_distance(a, b):
    return 1 - np.corrcoef(rankdata(a), rankdata(b))[0, 1]


def falling_loss(n, middle=None):
    """Loss [n] of the repeated half that falls from a plateau about `middle`."""
    middle = 75 if middle is None else middle
    loss = 0.2 + 3.6 / (1 + np.exp((np.arange(n) - middle) / 3))
    return loss + 0.01 * np.random.default_rng(24).standard_normal(n)


def write_study(folder, series, loss=None, effects=("total", "direct"), drop=None):
    """Write the five input files as the stages before do."""
    names = ("metrics.parquet", "replicates.npz", "blocks.npz", "behaviour.parquet", "series.tsv")
    files = Files(*(folder / name for name in names))
    steps, rows = series["steps"].tolist(), []
    for effect in effects:
        for name in (*WEIGHT_METRICS, *PATH_METRICS, "churn", "noise_floor", "excess_churn"):
            if (effect == "direct" and name not in PATH_METRICS) or name == drop:
                continue
            values = [None if np.isnan(value) else float(value) for value in series[name]]
            rows += [(step, effect, name, value) for step, value in zip(steps, values, strict=True)]
    table = pl.DataFrame(rows, schema=["step", "effect", "metric", "estimate"], orient="row", infer_schema_length=None)
    bounds = [pl.col("estimate").alias(name) for name in ("corrected", "low", "high")]
    table.with_columns(bounds).write_parquet(files.metrics)

    replicates = [np.vstack([series[name], series[f"replicates.{name}"]]) for name in ("gini", "churn")]  # [17, n]
    total = {"total.gini": replicates[0], "total.churn": replicates[1], "direct.gini": 1 - replicates[0]}
    write_replicates(files.replicates, steps, total)
    write_replicates(files.blocks, steps, dict(zip(BLOCKS, np.moveaxis(series["blocks"], 2, 0), strict=True)))

    loss = falling_loss(len(steps)) if loss is None else loss
    rows = [(step, "loss_second", None, float(value)) for step, value in zip(steps, loss, strict=True)]
    for head, part in (("L0H0", 0.5), ("L1H0", 1.0)):
        score = part * (0.8 - loss / 5)
        rows += [(step, "prefix_matching", head, float(value)) for step, value in zip(steps, score, strict=True)]
    table = pl.DataFrame(rows, schema=["step", "quantity", "node", "estimate"], orient="row", infer_schema_length=None)
    table.with_columns(low="estimate", high="estimate").write_parquet(files.behaviour)

    displacement = np.diff(series["arc_length"], prepend=np.nan)
    pl.DataFrame(
        {
            "step": steps,
            "path": [f"checkpoints/{step}" for step in steps],
            "sha256": ["0" * 64] * len(steps),
            "bytes": [1] * len(steps),
            "tokens": series["steps"] * 1024.0,
            "displacement": [None if np.isnan(value) else value for value in displacement],
            "arc_length": series["arc_length"],
        }
    ).write_csv(files.manifest, separator="\t")
    return files


def write_replicates(path, steps, series):
    """Write name -> [17, n] as the network stage does."""
    values = np.stack(list(series.values()), axis=-1).swapaxes(0, 1)  # [n, 17, m]
    np.savez(path, steps=np.array(steps, dtype=np.int64), names=np.array(list(series)), values=values)
