"""What the configuration means beyond its schema: which steps, which studies, and whether they fit together.

Imported by the Snakefile, so it must stay cheap. ``python -m phasegraph.config`` writes a configuration as YAML.
"""

import argparse
import json

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.series.grids import series_steps
from phasegraph.series.plan import ALL, Plan, plan_of, recipe_of

MEASURED = ("task", "intervention", "measure", "nodes", "qkv", "by_position", "control", "answer", "dtype")
"""Keys of a study that change its edges or its behaviour."""

ALIKE = ("series", "intervention", "measure", "nodes", "direct", "dtype")
"""Keys that studies must share to be compared: prompts alone may differ."""

SET_ALIKE = (*MEASURED, "direct", "phases")
"""Keys that the studies of a set must share: what they measure and how they are tested."""


def plans(config: dict, results: str = "results") -> dict[str, Plan]:
    """Spell out every series.

    Raises
    ------
    PhasegraphError
        If a study names a series that does not exist or contradicts itself, or a series cannot be spelt out.
    """
    for name, study in config["studies"].items():
        if study["series"] not in config["series"]:
            known = ", ".join(config["series"])
            raise PhasegraphError(f"studies.{name}.series: there is no series {study['series']!r}; there is {known}")
        if study["qkv"] and not study["direct"]:
            raise PhasegraphError(f"studies.{name}.qkv: single inputs have direct effects only; set direct: true")
        if study["task"]["answers"] >= study["task"]["segment"]:
            raise PhasegraphError(f"studies.{name}.task.answers must be smaller than task.segment")
    return {name: plan_of(name, series, f"{results}/series/{name}") for name, series in config["series"].items()}


def steps_of_studies(config: dict, plans: dict[str, Plan]) -> dict[str, list[int]]:
    """Spell out which checkpoints each study looks at.

    Parameters
    ----------
    config
        The configuration.
    plans
        Its series, as `plans` gives them.

    Returns
    -------
    dict of str to list of int
        Steps by study, ascending.

    Raises
    ------
    PhasegraphError
        If a study's series has no such step, or a study is compared with one that it cannot be compared with.
    """
    found = {}
    for name, study in config["studies"].items():
        key, series = f"studies.{name}.steps", study["series"]
        there = plans[series].steps
        wanted = there if study["steps"] == ALL else series_steps(study["steps"], key)
        if lost := sorted(set(wanted) - set(there)):
            raise PhasegraphError(
                f"{key}: the series {series} has no step {lost[0]}; choose among its {len(there)} steps, {there[0]} to "
                f"{there[-1]}, or add it to series.{series}.steps"
            )
        found[name] = wanted
    for name in found:
        _check_comparison(name, config["studies"], found)
    return found


def _check_comparison(name: str, studies: dict, steps: dict[str, list[int]]) -> None:
    study, key = studies[name], f"studies.{name}.compare_with"
    other = study["compare_with"]
    if other is None:
        return
    if other not in studies:
        raise PhasegraphError(f"{key}: there is no study {other!r}; there is {', '.join(studies)}")
    if other == name:
        raise PhasegraphError(f"{key}: a study cannot be compared with itself; name another one, or null")
    for setting in ALIKE:
        if study[setting] != studies[other][setting]:
            ours, theirs = json.dumps(study[setting]), json.dumps(studies[other][setting])
            raise PhasegraphError(
                f"{key}: {other} has {setting}: {theirs} and {name} has {setting}: {ours}; let nothing but their "
                "prompts differ"
            )
    if study["task"] == studies[other]["task"]:
        raise PhasegraphError(f"{key}: {other} has the same prompts; give it another task, or another task.seed")
    if not set(steps[name]) & set(steps[other]):
        raise PhasegraphError(f"{key}: {other} looks at no step that {name} looks at; let their steps overlap")


def sets_of_studies(config: dict) -> dict[str, str]:
    """Spell out which studies belong to a set, the same training from several seeds.

    Returns
    -------
    dict of str to str
        Study -> its set; studies of no set are not there.

    Raises
    ------
    PhasegraphError
        If a set has a study's name, or its studies do not exist, belong to another set, share a series, or differ in
        what they measure or how they are tested.
    """
    found, studies = {}, config["studies"]
    for name, members in config.get("sets", {}).items():
        key = f"sets.{name}"
        if name in studies:
            raise PhasegraphError(f"{key}: there is a study {name}; give the set another name")
        for member in members:
            if member not in studies:
                raise PhasegraphError(f"{key}: there is no study {member!r}; there is {', '.join(studies)}")
            if member in found:
                raise PhasegraphError(f"{key}: {member} belongs to the set {found[member]} too; leave it out of one")
            found[member] = name
        _check_alike(key, members, studies)
    return found


def _check_alike(key: str, members: list[str], studies: dict) -> None:
    first, taken = members[0], {}
    for member in members:
        series = studies[member]["series"]
        if series in taken:
            raise PhasegraphError(
                f"{key}: {taken[series]} and {member} are of one series, {series}; take one study of each series"
            )
        taken[series] = member
        for setting in SET_ALIKE:
            if studies[member][setting] != studies[first][setting]:
                ours, theirs = json.dumps(studies[member][setting]), json.dumps(studies[first][setting])
                raise PhasegraphError(
                    f"{key}: {first} has {setting}: {theirs} and {member} has {setting}: {ours}; let nothing but "
                    "their series differ"
                )


def flagged(series: dict) -> str:
    """Say what becomes of flagged checkpoints, as a value of the command line."""
    wanted = series["flagged"]
    return wanted if isinstance(wanted, str) else ",".join(map(str, sorted(wanted)))


def training_threads(series: dict) -> int:
    """Count the threads of the embedded training, which belong to the recipe."""
    return recipe_of(series).threads


def training_seed(series: dict) -> int | None:
    """Give the seed of the embedded training; None of a series that was trained elsewhere."""
    return recipe_of(series).seed if series["source"] == "train" else None


def part_of(config: dict, study: str) -> str:
    """Give the part of the configuration that a study depends on, as one canonical JSON string.

    It is a configuration itself, so studies with which it is compared, and those of its set, belong to it.
    """
    sets = {name: members for name, members in config.get("sets", {}).items() if study in members}
    studies, todo = {}, [study, *(member for members in sets.values() for member in members)]
    while todo:
        name = todo.pop()
        if name is not None and name not in studies:
            studies[name] = config["studies"][name]
            todo.append(studies[name]["compare_with"])
    series = {study["series"]: config["series"][study["series"]] for study in studies.values()}
    return json.dumps({"series": series, "studies": studies} | ({"sets": sets} if sets else {}), sort_keys=True)


def measurement(study: dict) -> str:
    """Give everything of a study that changes its edges or its behaviour, as one canonical JSON string."""
    return json.dumps({key: study[key] for key in MEASURED}, sort_keys=True)


def node_options(study: dict) -> str:
    """Spell out which optional nodes a study has, as options of a command line."""
    return " ".join(f"--{name}" for name, wanted in sorted(study["nodes"].items()) if wanted)


def recipe(series: dict) -> str:
    """Give the changes that a series makes to the training recipe, as one canonical JSON string."""
    return json.dumps(series.get("recipe", {}), sort_keys=True)


def store_of(series: dict, code: str) -> str:
    """Name the folder in which the training keeps its weights: a digest of all that decides them."""
    return recipe_of(series).digest(code)


def alternatives(names: list[str]) -> str:
    """Make a wildcard constraint that lets these names pass, or none at all."""
    return "|".join(names) if names else "(?!)"


def main() -> None:
    """Read the command line and write the file."""
    import yaml  # the Snakefile has no need of it

    parser = argparse.ArgumentParser(prog="python -m phasegraph.config", description="Write a configuration as YAML.")
    parser.add_argument("--config", required=True, type=json.loads, help="the configuration, as JSON")
    parser.add_argument("--out", required=True, help="file to write")
    arguments = parser.parse_args()
    with atomic(arguments.out) as temporary:
        temporary.write_text(yaml.safe_dump(arguments.config, sort_keys=True, allow_unicode=True))


if __name__ == "__main__":
    with user_errors():
        main()
