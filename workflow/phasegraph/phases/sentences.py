"""What a study's phases come to, in plain English."""

from collections.abc import Iterable

FEW = 30
"""Number of checkpoints below which little can be concluded from a test that finds nothing.

In 24 simulated series of the rates of five blocks of four edges each, with a jump in the middle to ten times the rate,
test B found it in 4 of 11 points, in 6 of 15, in 9 of 22, in 17 of 30 and in 22 of 45.
"""


def sentences(found: dict) -> list[str]:
    """Say what was found and what was not.

    Parameters
    ----------
    found
        The contents of ``phases.json`` so far; see `phasegraph.phases.study.run_study`.

    Returns
    -------
    list of str
        The first sentence is the verdict of test B, the only one that separates phases from smooth drift.
    """
    if found["test_a"] is None:
        n = found["checkpoints"]["n"]
        verdict = [f"Not tested for phases: {n} checkpoints are too few for two regimes and a trend."]
    else:
        verdict = [_verdict(found), *few_checkpoints(found), *_regimes(found), *_recurrence(found), _labels(found)]
    return [*verdict, *_behaviour(found), *_left_out(found)]


def few_checkpoints(found: dict) -> list[str]:
    """Say that a test on so few checkpoints can hardly find anything; nothing if they are enough or none is made."""
    n = found["checkpoints"]["n"]
    if found["test_a"] is None or n >= FEW:
        return []
    return [f"With {n} checkpoints the tests would miss all but the largest changes."]


def _verdict(found: dict) -> str:
    boundaries = found["test_b"]["boundaries"]
    alpha = found["settings"]["alpha"]
    if not boundaries:
        p = found["test_b"]["p_values"][0]
        return (
            "Smooth drift suffices: against a smooth trend along the path in weight space, no jump of the rates of "
            f"change is significant (test B, p = {p:.3g}, alpha = {alpha:g})."
        )
    places = listed(f"step {b['step']} (90 % interval {_interval(b)}, p = {b['p_value']:.3g})" for b in boundaries)
    return f"Smooth drift does not suffice: the rates of change jump at {places} (test B, alpha = {alpha:g})."


def _regimes(found: dict) -> list[str]:
    boundaries = found["test_a"]["boundaries"]
    alpha = found["settings"]["alpha"]
    if not boundaries:
        p = found["test_a"]["p_values"][0]
        return [
            f"At most 1 regime shown: no level change of the rates of change (test A, p = {p:.3g}, alpha = {alpha:g})."
        ]
    places = listed(f"step {b['step']} ({b['kind']}, 90 % interval {_interval(b)})" for b in boundaries)
    lines = [f"At most {len(boundaries) + 1} regimes shown: new ones begin at {places} (test A, alpha = {alpha:g})."]
    if len(boundaries) == found["settings"]["max_changes"]:
        lines.append(
            "The search ended at its limit, so the number of regimes is not identified; see the sensitivity table."
        )
    return lines


def _recurrence(found: dict) -> list[str]:
    """Say in how many of the series without a group of prompts the boundaries are found again."""
    groups = found["recurrence"]["groups"]
    rows = found["recurrence"]["test_a"]
    if not rows:
        return []
    again = listed(f"{round(row['share'] * groups)} of them (step {row['step']})" for row in rows)
    return [f"Of the {groups} series that leave a group of prompts out, test A finds the boundaries again in {again}."]


def _labels(found: dict) -> str:
    """Name the segments and what the names rest on."""
    groups = found["recurrence"]["groups"]
    segments = listed(
        f"{s['label']} in steps {s['start_step']}-{s['end_step']} (slope {s['relative_slope']:.2g}, change "
        f"{s['relative_change']:.2g}, churn {s['relative_churn']:.2g}; the same without a group of prompts in "
        f"{round(s['label_share'] * groups)} of {groups})"
        for s in found["segments"]
    )
    return f"Described by rule: {segments}; labels describe and prove nothing."


def _behaviour(found: dict) -> list[str]:
    change = found["behaviour"]["transition"]
    if change is None:
        return ["The loss of the repeated half leaves no plateau, so no transition of behaviour is dated."]
    lines = [
        f"The loss of the repeated half falls from {change['plateau']:.3g} to {change['final']:.3g} between steps "
        f"{change['start']} and {change['end']} (half of it by step {change['half']})."
    ]
    reach = f"inside that transition or within {found['settings']['near_checkpoints']} checkpoints of it"
    if found["test_a"] is None or not found["test_a"]["boundaries"]:
        return lines
    near = found["behaviour"]["agreement"]["boundaries_at_transition"]
    if near:
        verb = "lies" if len(near) == 1 else "lie"
        return [*lines, f"Of the structural boundaries, {listed(f'step {step}' for step in near)} {verb} {reach}."]
    return [*lines, f"No structural boundary lies {reach}."]


def _left_out(found: dict) -> list[str]:
    dropped = found["checkpoints"]["dropped"]
    return [f"Left out: {listed('step {step} ({why})'.format(**d) for d in dropped)}."] if dropped else []


def _interval(boundary: dict) -> str:
    return "{}-{}".format(*boundary["interval_steps"])


def listed(items: Iterable[object]) -> str:
    """Join by commas and a final "and".

    Examples
    --------
    >>> listed([1]), listed([1, 2]), listed("abc")
    ('1', '1 and 2', 'a, b and c')
    """
    *most, last = [str(item) for item in items]
    return f"{', '.join(most)} and {last}" if most else last
