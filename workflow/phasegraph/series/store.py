"""Where trained weights lie, and whether they are still what was written.

``DIR/<digest>/`` belongs to one recipe (and software, and training code) and holds

- ``recipe.json``: what the digest stands for
- ``<step>/``: a Hugging Face model folder
- ``states/<step>.pt``: model and optimiser, from which the training can go on
- ``index.json``: SHA-256, size and modification time of each of these files, and the loss of every step

A file counts only once the index names it, and the index is replaced as a whole, so a killed run leaves nothing half
done. Only the standard library is imported.
"""

import fcntl
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phasegraph.files import atomic, sha256
from phasegraph.series.recipe import Recipe

logger = logging.getLogger(__name__)

CHECKPOINT_FILES = ("config.json", "model.safetensors")


class Store:
    """One recipe's files.

    Parameters
    ----------
    root
        The folder that holds the stores, one per digest.
    recipe, code
        Whose store it is (see `Recipe.digest`).
    """

    def __init__(self, root: str | Path, recipe: Recipe, code: str = "") -> None:
        self.root = Path(root)
        self.folder = self.root / recipe.digest(code)
        self.provenance = recipe.provenance(code)
        index = _read_index(self.folder / "index.json")
        self._files: dict[str, dict] = index["files"]
        self.losses: dict[int, tuple[float, float]] = {int(step): tuple(row) for step, row in index["log"].items()}
        """Learning rate and loss of every step that was ever made."""

    def holds(self, name: str) -> bool:
        """Whether a file is there with the bytes that were written.

        A file of unchanged size and modification time is believed; any other is read and compared.
        """
        known = self._files.get(name)
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if known is None or found.st_size != known["bytes"]:
            return False
        if found.st_mtime_ns != known["mtime_ns"]:
            if sha256(self.folder / name) != known["sha256"]:
                return False
            known["mtime_ns"] = found.st_mtime_ns
        return True

    def holds_step(self, step: int) -> bool:
        """Whether the checkpoint of a step is there and whole."""
        return all(self.holds(f"{step}/{name}") for name in CHECKPOINT_FILES)

    def states(self) -> list[int]:
        """List the steps from which the training can go on."""
        names = [name for name in self._files if name.startswith("states/") and self.holds(name)]
        return sorted(int(Path(name).stem) for name in names)

    def read(self, name: str) -> bytes:
        """Give the contents of a file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole. It counts after the next `commit`."""
        path = self.folder / name
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        found = path.stat()
        digest = hashlib.sha256(data).hexdigest()
        self._files[name] = {"sha256": digest, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}

    def commit(self) -> None:
        """Make all that was written, and the log, count."""
        with atomic(self.folder / "index.json") as temporary:
            temporary.write_text(json.dumps({"files": self._files, "log": self.losses}))

    def begin(self) -> None:
        """Make the folder, say in it what it is, and clear away what a killed run has left."""
        with atomic(self.folder / "recipe.json") as temporary:
            temporary.write_text(json.dumps(self.provenance, indent=2) + "\n")
        for leftover in self.folder.rglob(".*.tmp*"):
            leftover.unlink()

    def remove_others(self) -> None:
        """Remove the stores of other digests beside this one."""
        for other in self.root.iterdir():
            is_store = re.fullmatch(r"[0-9a-f]{16}", other.name) and (other / "recipe.json").is_file()
            if is_store and other != self.folder:
                logger.info("removing %s: another recipe, software or code made it", other)
                other = other.rename(self.root / f".removed-{other.name}")
            if other.name.startswith(".removed-"):
                shutil.rmtree(other)


@contextmanager
def alone(root: str | Path) -> Iterator[None]:
    """Wait until no other process trains into a folder (a killed workflow leaves its jobs running)."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is training into %s; waiting for it to end", root)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            logger.warning("%s has no file locks; do not train into it twice at the same time", root)
        yield


def _read_index(path: Path) -> dict[str, dict]:
    try:
        index = json.loads(path.read_text())
        return {"files": index["files"], "log": index["log"]}
    except FileNotFoundError:
        return {"files": {}, "log": {}}
    except (ValueError, KeyError, TypeError):
        logger.warning("%s is damaged; everything is made again", path)
        return {"files": {}, "log": {}}
