"""How large the models of a series are, known before any weights are there."""

import json
from collections.abc import Iterable
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.model.size import Size, size_of
from phasegraph.series.fault import CheckpointFault
from phasegraph.series.layout import CONFIG
from phasegraph.series.listing import bring, files_of, record_of
from phasegraph.series.pins import Pin
from phasegraph.series.refusals import plain_errors


def size_in(folders: Iterable[Path]) -> Size | None:
    """Read the size of a series off the first folder with a configuration; None if there is none that says it."""
    for folder in folders:
        try:
            return size_of(json.loads((folder / CONFIG).read_text()))
        except (OSError, ValueError, TypeError, AttributeError, PhasegraphError):
            continue  # what is wrong with a checkpoint is the audit's affair
    return None


def fetch_architecture(pins: Iterable[Pin], home: Path) -> None:
    """Put the configuration of the first commit that has one into ``<home>/architecture/config.json``, once.

    It is an empty object if no commit has one.

    Raises
    ------
    PhasegraphError
        If the repository cannot be had now.
    """
    path = home / "architecture" / CONFIG
    if not path.is_file():
        content = next(filter(None, (_configuration(pin, home / "downloads") for pin in pins if pin.commit)), "{}")
        with atomic(path) as temporary:
            temporary.write_text(content)


def _configuration(pin: Pin, downloads: Path) -> str | None:
    """Fetch the configuration of a commit; None if it has none. What was listed and fetched is used again later."""
    folder = downloads / pin.commit
    try:
        with plain_errors(pin.repo, pin.commit, downloads), record_of(downloads, pin.commit) as (record, save):
            files, _ = files_of(pin.repo, pin.commit, record, save, None)
            if CONFIG not in files:
                return None
            folder.mkdir(exist_ok=True)
            return bring(pin.repo, pin.commit, files[CONFIG], folder, None).read_text()
    except CheckpointFault:
        return None
