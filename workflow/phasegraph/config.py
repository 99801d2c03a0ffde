"""What the configuration means beyond its schema: which steps, which studies, and whether they fit together.

Imported by the Snakefile, so it must stay cheap: standard library only.
"""

import json

from phasegraph.errors import PhasegraphError
from phasegraph.series.recipe import Recipe
from phasegraph.series.steps import expand_steps


def series_steps(config: dict) -> dict[str, list[int]]:
    """Spell out the steps of every series, ascending.

    Raises
    ------
    PhasegraphError
        If a study names a series that does not exist, or a series has no valid recipe or steps.
    """
    for name, study in config["studies"].items():
        if study["series"] not in config["series"]:
            known = ", ".join(config["series"])
            raise PhasegraphError(f"studies.{name}.series: there is no series {study['series']!r}; there is {known}")
    steps = {}
    for name, series in config["series"].items():
        try:
            Recipe.from_dict(series["recipe"])
            steps[name] = expand_steps(series["steps"])
        except PhasegraphError as error:
            raise PhasegraphError(f"series.{name}: {error}") from error
    return steps


def measurement(study: dict) -> str:
    """Give everything of a study that changes its edges or its behaviour, as one canonical JSON string."""
    return json.dumps({key: study[key] for key in ("task", "intervention", "measure")}, sort_keys=True)


def recipe(series: dict) -> str:
    """Give the changes that a series makes to the training recipe, as one canonical JSON string."""
    return json.dumps(series["recipe"], sort_keys=True)


def store_of(series: dict, code: str) -> str:
    """Name the folder in which the training keeps its weights: a digest of all that decides them."""
    return Recipe.from_dict(series["recipe"]).digest(code)


def tokens_per_step(series: dict) -> int:
    """Count the tokens in a training batch of the embedded series."""
    changed = Recipe.from_dict(series["recipe"])
    return changed.batch * changed.length


def alternatives(names: list[str]) -> str:
    """Make a wildcard constraint that lets these names pass, or none at all."""
    return "|".join(names) if names else "(?!)"
