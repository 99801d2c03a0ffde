"""What the configuration of a series means: its steps, where each checkpoint lies, and how a change of it is told.

Read by the Snakefile, so only the standard library is imported, except once per series of a hub: the first time, the
hub is asked for the commits of its revisions and for a model's configuration, which are then kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.model.size import Size, size_of_recipe
from phasegraph.series.architecture import fetch_architecture, size_in
from phasegraph.series.directory import TRAINER, contents_of, find_checkpoints
from phasegraph.series.grids import Place, series_steps, spell
from phasegraph.series.hub import resolve
from phasegraph.series.layout import CONFIG, WEIGHTS, files_of
from phasegraph.series.pins import Pin, read_pins, write_pins
from phasegraph.series.recipe import Recipe

ALL = "all"

COMMON = {"source", "steps", "flagged"}
OF_SOURCE = {
    "train": {"recipe"},
    "hub": {"repo", "revisions", "steps_per_index", "tokens_per_step", "keep"},
    "directory": {"path", "pattern", "steps_per_index", "tokens_per_step"},
}
"""Keys of each source, besides the common ones."""

NEEDED = {"train": (), "hub": ("repo",), "directory": ("path",)}

DEMO = {"start": 4, "stop": 572, "every": 4, "also": [0, 1, 2]}
"""Steps of the embedded training, if the configuration names none."""


@dataclass(frozen=True)
class Plan:
    """The checkpoints of a series."""

    source: str
    """``train``, ``hub`` or ``directory``."""
    folders: dict[int, Path]
    """Where the checkpoint of every step lies, or will; steps ascending."""
    files: dict[int, list[str]]
    """What it is made of; of one that lies where somebody else wrote it, the files that are there."""
    contents: dict[int, str]
    """What distinguishes a checkpoint from another version of it, where that is known before it is made: its commit,
    or a digest of its files; empty for one that is missing."""
    tokens_per_step: int | None = None
    """Tokens in a training batch, if known."""
    pins: dict[int, Pin] = field(default_factory=dict)
    """Commits, for a series of a hub."""
    size: Size | None = None
    """How large the models are, if that can be told."""

    @property
    def steps(self) -> list[int]:
        """The steps, ascending."""
        return list(self.folders)


def plan_of(name: str, series: Mapping, home: str | Path) -> Plan:
    """Spell out a series.

    Parameters
    ----------
    name
        Its name, for error messages.
    series
        Its configuration.
    home
        Its folder of results; checkpoints that are made or fetched go to ``<home>/checkpoints/<step>``.

    Raises
    ------
    PhasegraphError
        If a key is wrong or missing, or there are no such checkpoints. The message names the key.
    """
    home = Path(home)
    source = series["source"]
    for key in series:
        if key not in COMMON | OF_SOURCE[source]:
            owner = next((other for other, keys in OF_SOURCE.items() if key in keys), None)
            raise PhasegraphError(f"series.{name}.{key} belongs to source: {owner}, but this one has source: {source}")
    for key in NEEDED[source]:
        if key not in series:
            raise PhasegraphError(f"series.{name}.{key} is missing; source: {source} needs it")
    try:
        return {"train": _of_training, "hub": _of_hub, "directory": _of_directory}[source](series, home)
    except PhasegraphError as error:
        raise PhasegraphError(f"series.{name}: {error}") from error


def _of_training(series: Mapping, home: Path) -> Plan:
    recipe = recipe_of(series)
    steps = series.get("steps", DEMO)
    if steps == ALL:
        raise PhasegraphError("steps: all is for checkpoints that are there already; say which steps to train")
    folders, files = _made(home, series_steps(steps))
    contents = dict.fromkeys(folders, "")
    return Plan("train", folders, files, contents, recipe.tokens_per_step, size=size_of_recipe(recipe))


def _of_hub(series: Mapping, home: Path) -> Plan:
    repo, revisions, path = series["repo"], series.get("revisions", "step{step}"), home / "pins.tsv"
    if not isinstance(revisions, str):
        revisions = {int(step): revision for step, revision in revisions.items()}
    known = read_pins(path) if path.is_file() else []
    steps = series.get("steps", ALL)
    if steps != ALL:
        wanted = series_steps(steps)
    elif isinstance(revisions, str):  # what is pinned, if anything is: a new branch changes nothing by itself
        wanted = [pin.step for pin in known if pin.repo == repo] or None
    else:
        wanted = sorted(revisions)
    per_index, per_step = series.get("steps_per_index", 1), series.get("tokens_per_step")
    pins = resolve(
        repo, revisions, wanted, steps_per_index=per_index, tokens_per_step=per_step, known=known, allow_missing=True
    )
    if not any(pin.commit for pin in pins):
        raise PhasegraphError(f"steps: {repo} has none of these {len(pins)} steps; correct steps or revisions")
    kept = {pin.step: pin for pin in known if pin.repo == repo} | {pin.step: pin for pin in pins}
    if sorted(kept.values(), key=lambda pin: pin.step) != known:  # steps that are left out today keep their commits
        fetch_architecture(pins, home)
        write_pins(kept.values(), path)
    by_step = {pin.step: pin for pin in pins}
    contents = {pin.step: pin.commit for pin in pins}
    folders, files = _made(home, by_step)
    # Not from what is fetched meanwhile: how a study is cut into jobs must not change while it runs.
    return Plan("hub", folders, files, contents, per_step, by_step, size_in([home / "architecture"]))


def _of_directory(series: Mapping, home: Path) -> Plan:
    path, pattern, per_index = Path(series["path"]), series.get("pattern"), series.get("steps_per_index", 1)
    found = find_checkpoints(path, pattern, per_index)
    steps = series.get("steps", ALL)
    wanted = list(found) if steps == ALL else series_steps(steps)
    if not found.keys() & set(wanted):
        raise PhasegraphError(f"steps: {path} has none of these {len(wanted)} steps; it has {_few(list(found))}")
    folders = {
        step: found.get(step) or path / (spell(pattern or TRAINER, Place(step), per_index) or f"step {step}")
        for step in wanted
    }
    contents = contents_of(folders, home / "contents.json")
    files = {step: [file.as_posix() for file in files_of(folder)] for step, folder in folders.items()}
    tokens = series.get("tokens_per_step")
    return Plan("directory", folders, files, contents, tokens, size=size_in(folders.values()))


def recipe_of(series: Mapping) -> Recipe:
    """Give the recipe of an embedded training, with the changes that a series makes to it."""
    return Recipe.from_dict(series.get("recipe", {}))


def _made(home: Path, steps: Iterable[int]) -> tuple[dict[int, Path], dict[int, list[str]]]:
    """Name the folders that the workflow makes for these steps, and the files in them."""
    folders = {step: home / "checkpoints" / str(step) for step in steps}
    return folders, {step: [f"{folder}/{name}" for name in (WEIGHTS, CONFIG)] for step, folder in folders.items()}


def _few(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[:3]))
    return f"{shown}, ..., {steps[-1]}" if len(steps) > 4 else ", ".join(map(str, steps))
