"""Which checkpoints are shown where there is no room for all."""

import numpy as np

from phasegraph.report.evidence import transition
from phasegraph.spread import spread_out


def telling_steps(steps: np.ndarray, phases: dict) -> dict[int, str]:
    """Choose six checkpoints and say why each.

    Parameters
    ----------
    steps
        [S], ascending.
    phases
        Contents of ``phases.json``.

    Returns
    -------
    dict of int to str
        Step -> its place in the run, ascending: the first and the last, the start, half and end of the transition of
        behaviour, and the checkpoint halfway before it. Six that are evenly spread if no transition is dated, or where
        it leaves fewer than six different ones.
    """
    change = transition(phases)
    if change is not None:
        start = int(np.searchsorted(steps, change.start))
        reasons = {
            int(steps[0]): "first",
            int(steps[start // 2]): "halfway to the transition",
            change.start: "transition begins",
            change.half: "half of the transition",
            change.end: "transition ends",
            int(steps[-1]): "last",
        }
        if len(reasons) == 6:
            return reasons
    places = spread_out(len(steps), 6)
    names = {0: "first", len(steps) - 1: "last"}
    return {int(steps[place]): names.get(place, "between") for place in places}


def landmarks(steps: np.ndarray, phases: dict) -> dict[str, int]:
    """Choose the checkpoints whose numbers are set side by side.

    Returns
    -------
    dict of str to int
        Name -> step, ascending: the last checkpoint before the transition of behaviour, the one at its end and the last
        of the run. If no transition is dated: the one after a quarter of the checkpoints and the last.
    """
    last, change = int(steps[-1]), transition(phases)
    if change is None:
        found = {"early": int(steps[len(steps) // 4]), "last": last}
    else:
        before = max(int(np.searchsorted(steps, change.start)) - 1, 0)
        found = {"before": int(steps[before]), "after": change.end, "last": last}
    return {name: step for name, step in found.items() if name == "last" or step != last}
