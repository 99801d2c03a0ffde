"""Behaviour of all checkpoints in one table."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group


def behaviour_table(files: list[str | Path]) -> pl.DataFrame:
    """Collect what was measured at every checkpoint: of the whole model, of every head, of every node.

    Parameters
    ----------
    files
        One ``<step>.npz`` per checkpoint: arrays of `phasegraph.tasks.behaviour.behaviour`, [GROUPS + 1] or
        [GROUPS + 1, L, H], and of effects on the answer, [GROUPS + 1, N], beside the N names of their ``nodes``.

    Returns
    -------
    DataFrame
        One row per step, quantity and node: step, quantity, node (null for the whole model), estimate, low, high (a
        90 % delete-group jackknife interval).

    Raises
    ------
    PhasegraphError
        If a file does not name the nodes of its effects.
    """
    rows = [row for file in sorted(map(Path, files), key=lambda file: int(file.stem)) for row in _rows(file)]
    schema = {"step": pl.Int64, "quantity": pl.String, "node": pl.String}
    schema |= dict.fromkeys(("estimate", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def require_settings(files: list[str | Path], study: Mapping) -> None:
    """Make sure that all checkpoints were measured as a study says now.

    Snakemake sees to that, but of what a job on a cluster wrote before it was cancelled it knows nothing: it neither
    runs again when the configuration changes nor is missing.

    Parameters
    ----------
    files
        One ``<step>.npz`` per checkpoint, whose ``settings`` are those that it was measured with, as JSON.
    study
        What a study measures.

    Raises
    ------
    PhasegraphError
        If a file was measured with other settings.
    """
    for file in map(Path, files):
        with np.load(file) as measured:
            found = json.loads(str(measured["settings"])) if "settings" in measured else {}
        for key in study:
            if found.get(key) != study[key]:
                old, new = (json.dumps(settings.get(key)) for settings in (found, study))
                raise PhasegraphError(
                    f"{file} was measured with {key}: {old} and the study has {new} now; delete "
                    f"{file.parent.parent}/*/{file.stem}.* and run again"
                )


def _rows(file: Path) -> Iterator[tuple]:
    with np.load(file) as measured:
        nodes = measured["nodes"].tolist() if "nodes" in measured else []
        for quantity, values in measured.items():  # [GROUPS + 1], [GROUPS + 1, L, H] or [GROUPS + 1, N]
            if quantity in ("nodes", "settings"):
                continue
            if values.ndim == 2 and values.shape[1] != len(nodes):
                raise PhasegraphError(
                    f"{file}: {quantity} of {values.shape[1]} nodes, but the names of {len(nodes)}; "
                    "delete the file and run the edges stage again"
                )
            interval = delete_group(values)
            for place in np.ndindex(values.shape[1:]):
                node = _name(place, nodes)
                bounds = (values[0][place], interval.low[place], interval.high[place])
                yield int(file.stem), quantity, node, *map(float, bounds)


def _name(place: tuple[int, ...], nodes: list[str]) -> str | None:
    """Name of what a value belongs to: a head by layer and number, a node by its index; None for the whole model."""
    if len(place) == 2:
        return f"L{place[0]}H{place[1]}"
    return nodes[place[0]] if place else None
