"""Whether the boundaries that are found in one training are found again in those from other seeds.

``python -m phasegraph.phases.seeds`` reads the ``phases.json`` of several studies and writes ``seeds.json``.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.phases.behaviour import NEAR
from phasegraph.phases.seed_sentences import sentences
from phasegraph.phases.settings import TESTS

SHOWN = ("step", "index", "interval_steps", "p_value", "kind")
"""Keys of a boundary in ``phases.json`` that are handed on."""


@dataclass(frozen=True)
class Run:
    """What is compared of one study."""

    steps: np.ndarray
    """Training steps of its checkpoints, ascending, int [N]."""
    boundaries: Mapping[str, np.ndarray]
    """Test -> boundaries as indices of its checkpoints, int [K]."""


def run_seeds(
    phases: Sequence[Path],
    names: Sequence[str],
    out: Path,
    series: Sequence[str] = (),
    seeds: Sequence[int | None] = (),
) -> dict:
    """Compare the boundaries of several studies and write what was found.

    Parameters
    ----------
    phases
        ``phases.json`` of each study.
    names
        Their names, in the same order.
    out
        ``seeds.json`` to write; its folder's name is that of the set.
    series, seeds
        The series of each study and the seed of its training, where that is known; shown beside the study's name.

    Returns
    -------
    dict
        What was written, see `compare_seeds`.

    Raises
    ------
    PhasegraphError
        If there are not as many names as files, or a file is missing, damaged or does not fit the others.
    """
    for key, given in (("names", names), ("series", series), ("seeds", seeds)):
        if len(given) != len(phases) and (given or key == "names"):
            raise PhasegraphError(f"--{key}: {len(given)} for {len(phases)} files; give one for each of --phases")
    if len(set(names)) < len(names) or len(names) < 2:
        raise PhasegraphError(f"--names: {', '.join(names)}; give two studies or more, each once")
    read = dict(zip(names, map(_read, phases), strict=True))
    found = {"set": out.resolve().parent.name} | compare_seeds(read)
    for entry, of, seed in zip(found["seeds"], series or names, seeds or [None] * len(names), strict=True):
        entry |= {"series": of, "seed": seed}
    with atomic(out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def compare_seeds(phases: Mapping[str, dict]) -> dict:
    """Look for the boundaries of every study in all others.

    Parameters
    ----------
    phases
        Study -> contents of its ``phases.json``, see `phasegraph.phases.study.run_study`.

    Returns
    -------
    dict
        ``studies``, their names; ``near_checkpoints``; ``left_out``, those with too few checkpoints for the tests,
        which stay out of all counts; ``seeds``, what each was found to have; ``recurrence``, study -> test -> for every
        boundary its ``step``, the ``share`` of the other studies with a boundary of the same test near it, their
        ``places`` (steps, None where there is none near; in the order of the studies, without this one and those left
        out), and ``p_value``, the probability of as many by chance; ``chance``, study -> test -> the share that chance
        is expected to give; ``sentences``.

    Raises
    ------
    PhasegraphError
        If a study's file is of another version, or was made with other settings than the first one's.

    Notes
    -----
    Near is within `NEAR` checkpoints of the study whose boundary it is. Series may have different checkpoints: a step
    between two of them has its place between them, and one before the first or after the last is near none.

    Chance is what all circular shifts of the other studies' sets of boundaries give, each by itself, as in
    `phasegraph.phases.behaviour.circular_shift_p`: a set keeps its size and its distances and forgets its place. No
    shift is drawn. With the share of one study's shifts that put a boundary near, the expected share over the studies
    is their mean, and the number of studies is a sum of independent Bernoulli variables (Poisson binomial
    distribution), whose upper tail is the p-value.
    """
    runs = {name: run for name, found in phases.items() if (run := _run(name, found))}
    _check_alike(phases)
    recurrence, chance = {}, {}
    for name, own in runs.items() if len(runs) > 1 else ():
        others = [run for other, run in runs.items() if other != name]
        recurrence[name], chance[name] = {}, {}
        for test in TESTS:
            tables = [_recur(own, index, others, test) for index in own.boundaries[test].tolist()]
            recurrence[name][test] = [row for row, _ in tables]
            chance[name][test] = [expected for _, expected in tables]
    found = {
        "studies": list(phases),
        "near_checkpoints": NEAR,
        "left_out": [name for name in phases if name not in runs],
        "seeds": [_entry(name, found) for name, found in phases.items()],
        "recurrence": recurrence,
        "chance": chance,
    }
    return found | {"sentences": sentences(found)}


def _recur(own: Run, index: int, others: Sequence[Run], test: str) -> tuple[dict, float]:
    """Look for one boundary of a study in the others: its row of the table, and the share expected by chance."""
    places, by_chance = [], []
    for other in others:
        apart = np.abs(np.interp(other.steps, own.steps, range(len(own.steps)), -np.inf, np.inf) - index)  # [N]
        there = other.boundaries[test]  # [K]
        nearest = there[np.argmin(apart[there])] if len(there) else None
        places.append(int(other.steps[nearest]) if nearest is not None and apart[nearest] <= NEAR else None)
        # No boundary is at the first checkpoint, to which no rate leads: the others are the places to shift among.
        n = len(other.steps) - 1
        shifted = 1 + (there - 1 + np.arange(n)[:, None]) % n  # [N - 1, K]
        by_chance.append(float((apart[shifted] <= NEAR).any(1).mean()))
    count = sum(place is not None for place in places)
    row = {"step": int(own.steps[index]), "share": _short(count / len(others)), "places": places}
    return row | {"p_value": _short(at_least(count, by_chance))}, _short(float(np.mean(by_chance)))


def at_least(count: int, probabilities: Sequence[float]) -> float:
    """Give the probability that at least `count` of some independent events happen, from the probability of each."""
    number = np.ones(1)  # probabilities of 0, 1, ... events
    for probability in probabilities:
        number = np.convolve(number, [1 - probability, probability])
    return float(min(1.0, number[count:].sum()))


def _run(name: str, found: dict) -> Run | None:
    """Take from ``phases.json`` what is compared; None if there were too few checkpoints for the tests."""
    try:
        found["settings"], found["checkpoints"]["n"], found["behaviour"]["transition"]  # of all, tested or not
        if found["test_a"] is None:
            return None
        steps = np.array(found["checkpoints"]["steps"], dtype=int)
        boundaries = {test: np.array([b["index"] for b in found[test]["boundaries"]], dtype=int) for test in TESTS}
        for test in TESTS:
            if steps[boundaries[test]].tolist() != [b["step"] for b in found[test]["boundaries"]]:
                raise KeyError("index")
    except (KeyError, TypeError, IndexError) as error:
        raise PhasegraphError(
            f"phases.json of {name}: not what this version writes ({error}); run the phases stage again"
        ) from error
    return Run(steps, boundaries)


def _check_alike(phases: Mapping[str, dict]) -> None:
    first, *rest = phases
    for name in rest:
        ours, theirs = phases[name]["settings"], phases[first]["settings"]
        for key in ours.keys() | theirs.keys():
            if ours.get(key) != theirs.get(key):
                raise PhasegraphError(
                    f"phases.json of {name}: made with {key}: {ours.get(key)} and that of {first} with "
                    f"{key}: {theirs.get(key)}; test both alike"
                )


def _entry(name: str, found: dict) -> dict:
    """Say what one study was found to have."""
    tests = {
        test: found[test] and [{key: boundary[key] for key in SHOWN} for boundary in found[test]["boundaries"]]
        for test in TESTS
    }
    about = {"study": name, "series": name, "seed": None, "n": found["checkpoints"]["n"]}
    return about | tests | {"transition": found["behaviour"]["transition"]}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PhasegraphError(f"{path} is missing or damaged; run the phases stage again") from error


def _seed(text: str) -> int | None:
    return None if text == "none" else int(text)


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m phasegraph.phases.seeds", description="Look for the boundaries of several seeds in each other."
    )
    parser.add_argument("--phases", type=Path, nargs="+", required=True, help="phases.json of every study")
    parser.add_argument("--names", nargs="+", required=True, help="names of the studies, in the same order")
    parser.add_argument("--series", nargs="+", default=[], help="their series (default: their names)")
    parser.add_argument("--seeds", type=_seed, nargs="+", default=[], help="seeds of their trainings, or none")
    parser.add_argument("--out", type=Path, required=True, help="seeds.json to write, in a folder of the set's name")
    given = parser.parse_args()
    found = run_seeds(given.phases, given.names, given.out, given.series, given.seeds)
    print("\n".join(found["sentences"]))


if __name__ == "__main__":
    with user_errors():
        main()
