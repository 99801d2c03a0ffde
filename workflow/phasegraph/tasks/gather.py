"""Behaviour of all checkpoints in one table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from phasegraph.jackknife import delete_group


def behaviour_table(files: list[str | Path]) -> pl.DataFrame:
    """Collect what `phasegraph.tasks.behaviour.behaviour` measured at every checkpoint.

    Parameters
    ----------
    files
        One ``<step>.npz`` per checkpoint.

    Returns
    -------
    DataFrame
        One row per step, quantity and head: step, quantity, node (null for the whole model), estimate, low, high (a
        90 % delete-group jackknife interval).
    """
    rows = [row for file in sorted(map(Path, files), key=lambda file: int(file.stem)) for row in _rows(file)]
    schema = {"step": pl.Int64, "quantity": pl.String, "node": pl.String}
    schema |= dict.fromkeys(("estimate", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _rows(file: Path) -> Iterator[tuple]:
    with np.load(file) as measured:
        for quantity, values in measured.items():  # [GROUPS + 1] or [GROUPS + 1, L, H]
            interval = delete_group(values)
            for place in np.ndindex(values.shape[1:]):
                node = f"L{place[0]}H{place[1]}" if place else None
                bounds = (values[0][place], interval.low[place], interval.high[place])
                yield int(file.stem), quantity, node, *map(float, bounds)
