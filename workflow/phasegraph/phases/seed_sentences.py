"""What several seeds of one training come to, in plain English."""

from phasegraph.phases.sentences import FEW, listed
from phasegraph.phases.settings import TESTS


def sentences(found: dict) -> list[str]:
    """Say whether the boundaries of one seed are found again in the others.

    Parameters
    ----------
    found
        The contents of ``seeds.json`` so far, see `phasegraph.phases.seeds.compare_seeds`.
    """
    tested = [name for name in found["studies"] if name not in found["left_out"]]
    left_out = []
    if found["left_out"]:
        left_out = [f"Too few checkpoints to be tested, and not counted: {listed(found['left_out'])}."]
    if len(tested) < 2:
        return [
            *left_out,
            "Nothing can be said of what seeds have in common, which takes two tested studies.",
            _behaviour(found),
        ]
    return [
        f"The boundaries of {len(tested)} studies that differ in their series alone are compared: {listed(tested)}.",
        *left_out,
        *_few(found),
        *(sentence for test in TESTS for sentence in _test(found, test, tested)),
        _behaviour(found),
    ]


def _test(found: dict, test: str, tested: list[str]) -> list[str]:
    rows = [(name, row) for name in tested for row in found["recurrence"][name][test]]
    if not rows:
        more = "; smooth drift suffices in each" if test == "test_b" else ""
        return [f"{TESTS[test]} finds no boundary in any of them{more}."]
    having = sum(bool(found["recurrence"][name][test]) for name in tested)
    share = sum(row["share"] for _, row in rows) / len(rows)
    chance = [expected for name in tested for expected in found["chance"][name][test]]
    what, each = ("1 boundary", "it") if len(rows) == 1 else (f"{len(rows)} boundaries", "one of them")
    lines = [
        f"{TESTS[test]} finds {what}, in {having} of {len(tested)} seeds; {each} is found again, within "
        f"{found['near_checkpoints']} checkpoints, in {100 * share:.0f} % of the other seeds on average, against "
        f"{100 * sum(chance) / len(chance):.0f} % by chance (boundaries shifted around the run)."
    ]
    name, best = max(rows, key=lambda row: row[1]["share"])
    if best["share"]:
        count = sum(place is not None for place in best["places"])
        lines.append(
            f"Most widely shared is the one of {name} at step {best['step']:,}: {count} of the {len(best['places'])} "
            "others have one near it."
        )
    return lines


def _few(found: dict) -> list[str]:
    """Say whose tests can hardly find anything, see `phasegraph.phases.sentences.few_checkpoints`."""
    few = [seed["study"] for seed in found["seeds"] if seed["test_a"] is not None and seed["n"] < FEW]
    if not few:
        return []
    return [
        f"With fewer than {FEW} checkpoints, as of {listed(few)}, the tests would miss all but the largest changes."
    ]


def _behaviour(found: dict) -> str:
    halves = sorted(seed["transition"]["half"] for seed in found["seeds"] if seed["transition"])
    if not halves:
        return "No transition of behaviour is dated in any seed."
    when = f"at step {halves[0]:,}" if halves[0] == halves[-1] else f"between steps {halves[0]:,} and {halves[-1]:,}"
    return (
        f"A transition of behaviour is dated in {len(halves)} of {len(found['seeds'])} seeds; half of the loss's fall "
        f"is done {when}."
    )
