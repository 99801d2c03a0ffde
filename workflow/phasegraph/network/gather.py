"""The fan-in: all checkpoints of a study into tables with intervals."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.network import distances
from phasegraph.network.blocks import block_changes, blocks_of, log_weights
from phasegraph.network.graph import (
    REPLICATES,
    are_components,
    between_components,
    read_edges,
    read_mask,
    read_nodes,
)
from phasegraph.network.roles import ROLES, SCORE_KINDS, eligible, holder_count
from phasegraph.network.stability import Key, agreements, reliability, stability_table, with_the_one_before
from phasegraph.network.tables import metric_table, read_network, role_table, write_table
from phasegraph.series.used import used_files
from phasegraph.types import GROUPS, Effect, Node


@dataclass(frozen=True)
class Outputs:
    """Where the tables go."""

    metrics: Path
    """Parquet, one row per (step, effect, metric): estimate, corrected, low, high."""
    roles: Path
    """Parquet, one row per (step, role, score_kind, node): estimate, low, high, rank, holder, holder_share; only
    components are ranked."""
    distances: Path
    """npy, float64 [3, S, S]: distances between the total effects of the sorted steps, each of
    `phasegraph.network.distances.KINDS`."""
    replicates: Path
    """npz: ``steps`` int64 [S], ``names`` [m] (``<effect>.<metric>``), ``values`` float64 [S, 17, m]."""
    blocks: Path
    """npz: ``steps`` int64 [S], ``names`` [B], ``values`` float64 [S, 17, B]: root mean square change of the logarithms
    of each block's weights (`phasegraph.network.blocks`) from the checkpoint before, NaN at the first."""
    excess: Path
    """npy, float64 [3, S, S]: the distances beyond the noise of the prompts."""
    stability: Path
    """Parquet, see `phasegraph.network.stability.stability_table`."""


class _Networks(NamedTuple):
    """What stands in the files of the first sub-command."""

    metric_names: list[str]
    metrics: np.ndarray
    """[S, 17, m]."""
    score_names: list[str]
    scores: np.ndarray
    """[S, 17, s, N]."""
    half_names: list[str]
    half_scores: np.ndarray
    """[S, 2, K, h, N]."""


def gather(network: list[Path], edges: list[Path], manifest: Path, nodes: Path, mask: Path, outputs: Outputs) -> None:
    """Collect the checkpoints of a study.

    Parameters
    ----------
    network
        ``network/<step>.npz`` of every checkpoint, in any order.
    edges
        ``edges/<step>.npy`` of the same checkpoints, the total effect.
    manifest
        ``series.tsv``; files of checkpoints that it leaves out are not read.
    nodes, mask
        ``nodes.tsv`` and ``mask.npy``.
    outputs
        The files to write.

    Raises
    ------
    PhasegraphError
        If a step has no file or two, or a file is not what it should be.

    Notes
    -----
    Churn, excess churn and the stability of rankings (``tau_*``: Kendall's tau-b; ``rbo_*``: chance-corrected
    rank-biased overlap; ``jaccard_*``: chance-corrected Jaccard index of the holders) of a checkpoint refer to the one
    before it; they are null at the first. ``noise_floor`` has no interval: it is a yardstick of noise itself.
    ``excess_churn`` needs no further correction; its interval has the width of churn's, which covers enough with 128
    prompts or more and too little with fewer (docs/network.md). All three are those of Spearman's correlation, and with
    an ending those of the other distances. Distances and churn are those of the edges between components, rankings
    those of components.
    """
    network, edges = used_files(network, manifest), used_files(edges, manifest)
    steps = [int(path.stem) for path in edges]
    if alone := {int(path.stem) for path in network} ^ set(steps):
        raise PhasegraphError(
            f"step {min(alone)} has a file in one of network/ and edges/ only; run the workflow, or the network stage "
            "for this checkpoint"
        )
    listed = read_nodes(nodes)
    possible, components = read_mask(mask, len(listed)), are_components(listed)
    networks = _read_networks(network, len(listed))
    churn, floors, excess = _walk(edges, steps, listed, possible, outputs)
    role_scores = _role_scores(networks.score_names, networks.scores, possible, components)
    series = {f"{Effect.TOTAL}.churn{distances.ENDINGS[kind]}": values for kind, values in churn.items()}
    series |= _stabilities(role_scores, _half_scores(networks, possible, components), components, outputs.stability)
    names = [*networks.metric_names, *series]
    values = np.concatenate([networks.metrics, *(one[..., None] for one in series.values())], axis=2)  # [S, 17, m]

    write_table(metric_table(steps, names, values, floors, excess), outputs.metrics)
    write_table(role_table(steps, listed, role_scores), outputs.roles)
    with atomic(outputs.replicates) as temporary:
        np.savez(temporary, steps=np.array(steps, dtype=np.int64), names=np.array(names), values=values)


def _read_networks(paths: list[Path], size: int) -> _Networks:
    """Read the files of the first sub-command."""
    found, first = [], None
    for path in paths:
        file = read_network(path, [*_Networks._fields])
        here = [file[f"{name}_names"].tolist() for name in ("metric", "score", "half")]
        arrays = [file[name] for name in ("metrics", "scores", "half_scores")]
        first = first or (here, arrays[2].shape)
        fits = arrays[1].shape == (REPLICATES, len(here[1]), size) and arrays[2].shape[2:] == (len(here[2]), size)
        if (here, arrays[2].shape) != first or not fits:
            raise PhasegraphError(
                f"{path}: other nodes, metrics or effects than {paths[0]}; delete both and run the network stage again"
            )
        found.append(arrays)
    metrics, scores, half_scores = (np.stack(arrays) for arrays in zip(*found, strict=True))
    metric_names, score_names, half_names = first[0]
    return _Networks(metric_names, metrics, score_names, scores, half_names, half_scores)


def _walk(
    paths: list[Path], steps: list[int], nodes: list[Node], mask: np.ndarray, outputs: Outputs
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Write the distances of all pairs of checkpoints and the change by block, and give the rest about neighbours.

    Only the estimates and the halves of all checkpoints are held: of the large models all replicates would not fit.

    Returns
    -------
    churn
        Kind of distance -> [S, 17], NaN at the first step.
    floors, excess
        Ending of the kind -> noise floor and excess churn, [S], the latter NaN at the first step.
    """
    inner = between_components(mask, are_components(nodes))
    splits = distances.half_splits(GROUPS, distances.split_count(inner.sum()))
    estimates = np.empty((len(paths), inner.sum()), dtype=np.float32)  # as the files are
    parted = np.empty((len(splits), 2, *estimates.shape), dtype=np.float32)
    churn = {kind: np.full((len(paths), REPLICATES), np.nan) for kind in distances.KINDS}
    blocks, block = blocks_of(nodes, inner)
    changes = np.full((len(paths), REPLICATES, len(blocks)), np.nan)
    before = {}
    for i, path in enumerate(paths):
        weights = read_edges(path, mask, nodes)[:, inner]  # [17, E]
        estimates[i], parted[:, :, i] = weights[0], np.moveaxis(distances.halves(weights, splits), 0, 1)
        for kind in distances.KINDS:
            prepared = distances.prepare(weights, kind)
            if i:
                churn[kind][i] = distances.distance(before[kind], prepared, kind)
            before[kind] = prepared
        logs = log_weights(weights)
        if i:
            changes[i] = block_changes(before["logs"], logs, block)
        before["logs"] = logs
        if 10 * (i + 1) // len(paths) > 10 * i // len(paths):
            _tell(f"{i + 1} of {len(paths)} checkpoints read")
    with atomic(outputs.blocks) as temporary:
        np.savez(temporary, steps=np.array(steps, dtype=np.int64), names=np.array(blocks), values=changes)
    found = {}
    for kind in distances.KINDS:
        found[kind] = distances.compare(estimates, parted, kind)
        _tell(f"all pairs compared by {kind}, the halves of the prompts in {len(splits)} splits")
    for path, of in ((outputs.distances, 0), (outputs.excess, 1)):
        with atomic(path) as temporary:
            np.save(temporary, np.stack([every[of] for every in found.values()]))
    floors = {distances.ENDINGS[kind]: every[2] for kind, every in found.items()}
    excess = {distances.ENDINGS[kind]: np.append(np.nan, every[1].diagonal(1)) for kind, every in found.items()}
    return churn, floors, excess


def _role_scores(
    names: list[str], scores: np.ndarray, mask: np.ndarray, components: np.ndarray
) -> dict[Key, np.ndarray]:
    """(effect, role, score kind) -> scores [S, 17, N], NaN for nodes that cannot play the role.

    Paths use the direct effect where it was computed.
    """
    found = {}
    for role, score in ROLES.items():
        for kind in SCORE_KINDS:
            effect = Effect.DIRECT if f"{Effect.DIRECT}.{score}.{kind}" in names else Effect.TOTAL
            values = scores[:, :, names.index(f"{effect}.{score}.{kind}")]
            found[effect, role, kind] = np.where(eligible(role, mask, components), values, np.nan)
    return found


def _half_scores(networks: _Networks, mask: np.ndarray, components: np.ndarray) -> dict[Key, np.ndarray]:
    """(effect, role, score kind) -> scores by both halves of the prompts [S, 2, K, N], of the strengths."""
    roles = {score: role for role, score in ROLES.items()}
    found = {}
    for place, name in enumerate(networks.half_names):
        effect, score, kind = name.split(".")
        values = networks.half_scores[:, :, :, place]
        found[effect, roles[score], kind] = np.where(eligible(roles[score], mask, components), values, np.nan)
    return found


def _stabilities(
    role_scores: dict[Key, np.ndarray], half_scores: dict[Key, np.ndarray], components: np.ndarray, out: Path
) -> dict[str, np.ndarray]:
    """Write how long rankings of components last; name -> [S, 17], agreement of each with that of the step before."""
    series, by_key, k = {}, {}, holder_count(components.sum())
    for key, scores in role_scores.items():
        effect, role, kind = key
        by_key[key] = agreements(scores[:, :, components], k)
        for quantity, values in with_the_one_before(by_key[key]).items():
            series[f"{effect}.{quantity}_{role}_{kind}"] = values
        _tell(f"rankings of {role}s by the {kind} score compared")
    reliable = {key: reliability(scores[..., components], k) for key, scores in half_scores.items()}
    write_table(stability_table(by_key, reliable), out)
    return series


def _tell(text: str) -> None:
    print(f"phasegraph: {text}", file=sys.stderr, flush=True)
