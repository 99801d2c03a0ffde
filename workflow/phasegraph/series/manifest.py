"""What a series consists of: ``series.tsv``, one row per checkpoint, and ``audit.json``, both from what `audit` found.

Distances are Euclidean in the space of all weights. Later stages measure change per unit of this distance, because
change per step follows the learning rate.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.series.pins import Pin
from phasegraph.series.table import COLUMNS, KINDS, Audited, read_rows


def write_manifest(
    rows: Iterable[Audited], out: str | Path, *, pins: Iterable[Pin] = (), tokens_per_step: int | None = None
) -> None:
    """Write the table of a series, separated by tabs. What is unknown stays empty.

    Its columns are

    - step
    - path: the checkpoint's folder, relative to the table's where it lies below that or below the working directory,
      else absolute
    - revision, commit, stage: as pinned
    - sha256 of the weights' contents (`weights.content_digest`), bytes of their files, dtype, parameters
    - tokens seen: as pinned, else by `tokens_per_step`
    - displacement: Euclidean distance of the weights from the previous used checkpoint (the first has none)
    - arc_length: sum of the displacements of the used checkpoints so far, 0 in the first; of used ones alone
    - flags: what is wrong, as "kind: sentence" or a sentence that begins with the kind, with "; " between
    - used: yes or no

    Parameters
    ----------
    rows
        What `audit` returned, by step.
    out
        The table to write.
    pins
        Revisions and commits of the steps, if the series comes from a hub.
    tokens_per_step
        Tokens in a training batch.
    """
    out = Path(out)
    pinned = {pin.step: pin for pin in pins}
    arc_length = 0.0
    with atomic(out) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, restval="", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            pin = pinned.get(row.step)
            tokens = None if tokens_per_step is None else row.step * tokens_per_step
            arc_length += (row.distance or 0.0) if row.used else 0.0
            written = {
                "step": row.step,
                "path": _place(row, out),
                "revision": pin and pin.revision,
                "commit": pin and pin.commit,
                "sha256": row.digest,
                "bytes": row.bytes,
                "dtype": row.dtype,
                "parameters": row.parameters,
                "tokens": tokens if pin is None or pin.tokens is None else pin.tokens,
                "stage": pin and pin.stage,
                "displacement": row.distance,
                "arc_length": arc_length if row.used else None,
                "flags": "; ".join(" ".join(str(flag).split()) for flag in row.flags),
                "used": "yes" if row.used else "no",
            }
            writer.writerow(written)  # None is written as nothing


def write_audit(path: str | Path, rows: Iterable[Audited]) -> None:
    """Write what `audit` found as JSON: counts, and one object per checkpoint with the fields of `Audited`."""
    rows = list(rows)
    kinds = Counter(flag.kind for row in rows for flag in row.flags)
    summary = {
        "checkpoints": len(rows),
        "flagged": sum(not row.good for row in rows),
        "used": sum(row.used for row in rows),
        "by_kind": {kind: kinds[kind] for kind in KINDS if kind in kinds},
    }
    with atomic(path) as temporary:
        contents = {"summary": summary, "checkpoints": [asdict(row) for row in rows]}
        temporary.write_text(json.dumps(contents, indent=1) + "\n")


def read_manifest(path: str | Path) -> dict[str, np.ndarray]:
    """Read a manifest, with the checkpoints that are not used.

    Returns
    -------
    dict of str to numpy.ndarray
        One array [checkpoints] per column (see `write_manifest`): int64 step, bool used, str path, revision, commit,
        sha256, dtype, stage and flags, float64 bytes, parameters, tokens, displacement and arc_length with NaN where a
        value is empty.

    Raises
    ------
    PhasegraphError
        If the file is missing or not a manifest.
    """
    rows = read_rows(path)

    def value(text: str, kind: type) -> object:
        return text == "yes" if kind is bool else float(text or "nan") if kind is float else kind(text)

    try:
        return {name: np.array([value(row[name], kind) for row in rows], dtype=kind) for name, kind in COLUMNS.items()}
    except ValueError as error:
        raise PhasegraphError(f"{path} cannot be read as a manifest ({error}); delete it and run again") from error


def _place(row: Audited, out: Path) -> str:
    if row.folder is None or any(flag.kind == "missing" for flag in row.flags):
        return ""
    folder = Path(os.path.abspath(row.folder))  # noqa: PTH100 (resolve would follow links out of the project)
    table = Path(os.path.abspath(out.parent))  # noqa: PTH100
    inside = folder.is_relative_to(table) or (folder.is_relative_to(Path.cwd()) and table.is_relative_to(Path.cwd()))
    return Path(os.path.relpath(folder, table)).as_posix() if inside else folder.as_posix()
