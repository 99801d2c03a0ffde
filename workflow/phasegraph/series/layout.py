"""The files of a checkpoint's folder (the standard library alone: the Snakefile reads this)."""

import json
from pathlib import Path

from phasegraph.errors import PhasegraphError

CONFIG, WEIGHTS, PICKLED, INDEX = "config.json", "model.safetensors", "pytorch_model.bin", ".index.json"

LAYOUTS = (WEIGHTS, WEIGHTS + INDEX, PICKLED, PICKLED + INDEX)
"""Files by which a checkpoint is recognised, the preferred first, as in transformers."""


def layout(folder: str | Path) -> Path:
    """Find the file by which a folder's weights are read: a file of weights, or the index of their shards.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    for name in LAYOUTS:
        if (path := Path(folder) / name).is_file():
            return path
    raise FileNotFoundError(f"{folder} holds no weights (none of {', '.join(LAYOUTS)})")


def shards_of(index: Path) -> dict[str, Path]:
    """Give the file of every tensor that an index lists.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If it is not such an index.
    """
    return {name: index.with_name(shard) for name, shard in json.loads(index.read_text())["weight_map"].items()}


def files_of(folder: str | Path) -> list[Path]:
    """List the files that a model is made of: configuration, weights, their index. Only those that are there."""
    config = Path(folder) / CONFIG
    found = [config] if config.is_file() else []
    try:
        found.append(layout(folder))
        if found[-1].name.endswith(INDEX):
            found += sorted(path for path in set(shards_of(found[-1]).values()) if path.is_file())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return found


def step_and_folder(text: str) -> tuple[int, Path | None]:
    """Read ``STEP=FOLDER``, as command lines name a checkpoint; without a folder there is none of that step.

    Raises
    ------
    PhasegraphError
        If it is not of this form.
    """
    step, equals, folder = text.partition("=")
    if not (equals and step.isascii() and step.isdigit()):
        raise PhasegraphError(
            f"a checkpoint must be given as STEP=FOLDER, such as 500=run/checkpoint-500, not {text!r}"
        )
    return int(step), Path(folder) if folder else None
