"""What other seeds of the same training show, where a study is a member of a set."""

from phasegraph.report.tables import Table
from phasegraph.report.words import DASH, at_steps, listed, plural, probability, steps_range

NAMES = {"test_a": "test A", "test_b": "test B"}


def seeds_texts(seeds: dict | None, study: str) -> list[str]:
    """Say whether the boundaries of a study are found again in other seeds, and theirs in each other.

    Parameters
    ----------
    seeds
        Contents of ``seeds.json``, see `phasegraph.phases.seeds.compare_seeds`; None if the study is of no set.
    study
        Name of the study.
    """
    if seeds is None:
        return []
    own = seeds["recurrence"].get(study, {})
    rows = [(test, *both) for test in own for both in zip(own[test], seeds["chance"][study][test], strict=True)]
    return [*seeds["sentences"], *(_own_text(*row) for row in rows)]


def seeds_table(seeds: dict | None) -> Table | None:
    """List what was found in every seed of a set; None if there is none."""
    if seeds is None:
        return None
    rows = [
        [
            seed["study"],
            DASH if seed["seed"] is None else str(seed["seed"]),
            f"{seed['n']:,}",
            *(_places(seed[test]) for test in NAMES),
            steps_range(seed["transition"]["start"], seed["transition"]["end"]) if seed["transition"] else "none dated",
        ]
        for seed in seeds["seeds"]
    ]
    note = "Steps of the boundaries, with their 90 % intervals; the transition of behaviour is dated by the loss alone."
    return Table(["study", "seed", "checkpoints", "test A", "test B", "transition of behaviour"], rows, note)


def _own_text(test: str, row: dict, chance: float) -> str:
    """Say where one boundary of this study is in the others."""
    found = sorted({place for place in row["places"] if place is not None})
    count = sum(place is not None for place in row["places"])
    where = f", at {at_steps(found)}" if found else ""
    return (
        f"This study's boundary of {NAMES[test]} at step {row['step']:,} has one near it in {count} of "
        f"{plural(len(row['places']), 'other seed')}{where}; by chance it would be {100 * chance:.0f} % of them "
        f"({probability(row['p_value'])} for so many or more)."
    )


def _places(boundaries: list[dict] | None) -> str:
    if boundaries is None:
        return "not tested"
    if not boundaries:
        return "none"
    return listed(f"{b['step']:,} ({steps_range(*b['interval_steps'])})" for b in boundaries)
