"""What a series consists of: one row per checkpoint, with its content and how far the weights have moved.

Distances are Euclidean in the space of all floating-point weights. Later stages measure change per unit of this
distance, because change per step follows the learning rate.
"""

import csv
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic, sha256

logger = logging.getLogger(__name__)

COLUMNS = {
    "step": int,
    "path": str,
    "sha256": str,
    "bytes": int,
    "tokens": float,
    "displacement": float,
    "arc_length": float,
}
"""The columns of ``series.tsv`` and their types; an empty number is read as NaN."""

WEIGHTS = "model.safetensors"

TORCH_ONLY = ("BF16", "F8_E4M3", "F8_E5M2")
"""Number formats that numpy lacks; only checkpoints that hold one of them need torch to be imported."""


def write_manifest(folders: Iterable[str | Path], out: str | Path, tokens_per_step: int | None = None) -> None:
    """List checkpoints, sorted by step.

    Parameters
    ----------
    folders
        Folders of checkpoints, each named by its step and holding ``model.safetensors``.
    out
        The table to write, separated by tabs: step; path of the folder, relative to the table's; sha256 and bytes of
        the weights' file; tokens seen (empty if `tokens_per_step` is None); displacement, the Euclidean distance of
        the weights from the row before (empty in the first row, which has none); arc_length, the sum of the
        displacements so far (0 in the first row).
    tokens_per_step
        Tokens in a training batch.

    Raises
    ------
    PhasegraphError
        If a checkpoint is missing, unreadable, not finite or of another shape than the first. The message names it.
    """
    out = Path(out)
    checkpoints = _by_step(folders)
    logger.info("reading %d checkpoints", len(checkpoints))
    rows, previous, arc_length = [], None, 0.0
    for number, (step, folder) in enumerate(checkpoints, start=1):
        path = folder / WEIGHTS
        with _named(step, path):
            moved = distance(previous or path, path)  # the first is read too, so that it is checked
            digest, size = sha256(path), path.stat().st_size
        if previous and moved == 0:
            logger.warning("checkpoint %d has the same weights as the one before", step)
        arc_length += moved
        place = Path(os.path.relpath(folder, out.parent)).as_posix()
        tokens = "" if tokens_per_step is None else step * tokens_per_step
        rows.append((step, place, digest, size, tokens, moved if previous else "", arc_length))
        previous = path
        if number * 10 // len(checkpoints) > (number - 1) * 10 // len(checkpoints):
            logger.info("%d of %d checkpoints read", number, len(checkpoints))
    with atomic(out) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def distance(before: str | Path, after: str | Path) -> float:
    """Euclidean distance of two checkpoints' floating-point weights, summed in float64.

    One tensor of each is in memory at a time.

    Parameters
    ----------
    before, after
        Files in the safetensors format.

    Raises
    ------
    ValueError
        If the tensors' names or shapes differ, or a weight is not finite.
    """
    with _open(before) as old, _open(after) as new, np.errstate(invalid="ignore"):
        if _shapes(old) != _shapes(new):
            raise ValueError(f"its tensors' names or shapes differ from those of {before}")
        total = 0.0
        for name in new.keys():  # noqa: SIM118 (not a dict)
            if new.get_slice(name).get_dtype().startswith(("F", "BF")):
                change = np.subtract(_array(new, name), _array(old, name), dtype=np.float64)
                total += float(np.square(change, out=change).sum())
    if not math.isfinite(total):
        raise ValueError("its weights are not finite")
    return math.sqrt(total)


def read_manifest(path: str | Path) -> dict[str, np.ndarray]:
    """Read a manifest.

    Returns
    -------
    dict of str to numpy.ndarray
        One array [checkpoints] per column: int64 step and bytes, str path (relative to the manifest's folder) and
        sha256, float64 tokens, displacement and arc_length with NaN where a value is empty.

    Raises
    ------
    PhasegraphError
        If the file is missing or not a manifest.
    """
    try:
        with Path(path).open(newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        return {
            name: np.array([kind(row[name] or "nan") if kind is float else kind(row[name]) for row in rows], dtype=kind)
            for name, kind in COLUMNS.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PhasegraphError(f"{path} cannot be read as a manifest ({error!r}); delete it and run again") from error


def _by_step(folders: Iterable[str | Path]) -> list[tuple[int, Path]]:
    found: dict[int, Path] = {}
    for folder in map(Path, folders):
        if not (folder.name.isascii() and folder.name.isdigit()):
            raise PhasegraphError(f"checkpoint folder {folder} must be named by its step, a whole number")
        step = int(folder.name)
        if step in found:
            raise PhasegraphError(f"checkpoint {step} is given twice: {found[step]} and {folder}; give one of them")
        found[step] = folder
    return sorted(found.items())


@contextmanager
def _named(step: int, path: Path) -> Iterator[None]:
    """Give an error the name of the checkpoint and the way out."""
    way_out = "fetch or train it again, or take its step out of the series"
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise PhasegraphError(f"checkpoint {step}: {path} is missing or damaged ({error}); {way_out}") from error


def _open(path: str | Path) -> safe_open:
    with safe_open(path, framework="numpy") as file:
        known = all(file.get_slice(name).get_dtype() not in TORCH_ONLY for name in file.keys())  # noqa: SIM118
    return safe_open(path, framework="numpy" if known else "pt")


def _shapes(file: safe_open) -> dict[str, list[int]]:
    return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def _array(file: safe_open, name: str) -> np.ndarray:
    tensor = file.get_tensor(name)
    return tensor if isinstance(tensor, np.ndarray) else tensor.double().numpy()
