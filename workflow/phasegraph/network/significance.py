"""The metrics of a checkpoint beside those of null graphs."""

from collections.abc import Callable, Mapping

import numpy as np

from phasegraph.network import suite
from phasegraph.network.nulls import NULLS, Comparison, compare, draw
from phasegraph.network.suite import Metrics, Structure
from phasegraph.types import Effect

Family = tuple[int, Callable[[np.ndarray, Structure], Metrics]]
"""Number of null graphs, and what is computed of each."""


def against_nulls(
    weights: Mapping[Effect, np.ndarray],
    path_effect: Effect,
    structure: Structure,
    metrics: Mapping[str, np.ndarray],
    draws: int | None,
    seed: list[int],
) -> dict[str, np.ndarray]:
    """Compare the metrics of a checkpoint with those of null graphs.

    Parameters
    ----------
    weights
        Effect -> [17, N, N], between components; the first replicate is the estimate.
    path_effect
        The effect whose paths, triangles and flow are compared.
    structure
        Of the graphs.
    metrics
        ``<effect>.<metric>`` -> [17]; the first is compared.
    draws
        Number of null graphs; None for a number that suits the size, 0 for none.
    seed
        Seeds of the generator.

    Returns
    -------
    dict of str to ndarray
        ``null_names`` [q] (``<effect>.<metric>.<null>``), ``null_columns`` [7] and ``nulls`` float64 [q, 7].
    """
    plan = suite.planned_draws(len(structure.mask), draws)
    names, rows = [], []
    for null in NULLS:
        families = {effect: [] for effect in weights}
        families[Effect.TOTAL] += [(plan.cheap, suite.of_strengths), (plan.searches, suite.of_communities)]
        if null != "block":  # which keeps all weights
            families[Effect.TOTAL].append((plan.paths, suite.of_weights))
        families[path_effect] += [
            (plan.paths, suite.of_triangles),
            (plan.paths, suite.of_paths),
            (plan.searches, suite.of_flow),
        ]
        for effect, of_effect in families.items():
            drawn = _drawn(null, weights[effect][0], structure, of_effect, [*seed, *effect.encode()])
            for metric, values in drawn.items():
                names.append(f"{effect}.{metric}.{null}")
                rows.append(compare(metrics[f"{effect}.{metric}"][:1], values[:, None]))
    return {
        "null_names": np.array(names, dtype=str),
        "null_columns": np.array(Comparison._fields),
        "nulls": np.array([np.concatenate(row) for row in rows]).reshape(len(rows), len(Comparison._fields)),
    }


def _drawn(null: str, weights: np.ndarray, structure: Structure, families: list[Family], seed: list[int]) -> Metrics:
    """Metrics [D] of null graphs of one graph [N, N]; costly ones only of the first few."""
    found: dict[str, list[np.ndarray]] = {}
    most = max((count for count, _ in families), default=0)
    done = 0
    for batch in draw(null, weights, structure.mask, structure.classes, most, seed):
        for count, metrics_of in families:
            part = batch[: max(count - done, 0)]
            if len(part):
                for name, values in metrics_of(part, structure).items():
                    found.setdefault(name, []).append(values)
        done += len(batch)
    return {name: np.concatenate(values) for name, values in found.items()}
