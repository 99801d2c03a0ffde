"""Contents of phases.json as tests of the report plant them."""

from itertools import pairwise

import numpy as np

COUNT = 40
"""Checkpoints, at every fourth step."""
GROUPS = 16


def boundary(step, low, high, p_value=0.004, kind="gradual"):
    return {"step": step, "index": step // 4, "p_value": p_value, "interval_steps": [low, high], "kind": kind}


def search(p_values, steps):
    """Steps of a search: each best at the first split that is left, and worse by 1 per split after it."""
    found, splits = [], list(range(5, len(steps) - 5))
    for number, p_value in enumerate(p_values):
        gains = [100 - 10 * number - place for place in range(len(splits))]
        quantiles = {"0.5": 30.5, "0.9": 50.5, "0.95": 60.5, "0.99": 80.5}
        found.append({"best_step": int(steps[splits[0]]), "p_value": p_value,
                      "steps": [int(steps[i]) for i in splits], "gains": gains, "quantiles": quantiles})  # fmt: skip
        splits = splits[5:] or splits
    return found


def recurring(found, absent):
    """Without each of the first `absent` groups the boundary does not come back; without the others at its step."""
    places = [None if group < absent else found["step"] for group in range(GROUPS)]
    return {"step": found["step"], "share": 1 - absent / GROUPS, "places": places}


def planted_phases(a=(), b=(), transition=(60, 80, 100), p_a=0.3, p_b=0.2, near=(), n=COUNT, limit=3, steps=None):
    """Contents of phases.json with these boundaries of test A and test B.

    Without the first group there is a boundary of each test at the last checkpoint but six, and none other.
    """
    steps = 4 * np.arange(n) if steps is None else np.asarray(steps)
    dated = transition and dict(zip(("start", "half", "end"), transition, strict=True))
    tests, recurrence = {}, {"groups": GROUPS, "all": {}}
    for test, found, p_value in (("test_a", a, p_a), ("test_b", b, p_b)):
        p_values = [x["p_value"] for x in found] + [p_value] * (len(found) < limit)
        tests[test] = {"boundaries": list(found), "p_values": p_values, "search": search(p_values, steps[1:]), "ar": {}}
        recurrence[test] = [recurring(x, absent) for absent, x in enumerate(found, start=1)]
        places = [[x["places"][g] for x in recurrence[test]] for g in range(GROUPS)]
        recurrence["all"][test] = [[place for place in row if place is not None] for row in places]
        recurrence["all"][test][0] = [int(steps[-7])]
    states = np.repeat([0, 1, 0], [10, 15, n - 1 - 25]).tolist() if n > 26 else [0] * (n - 1)
    corners = [int(steps[0]), *(x["step"] for x in a), int(steps[-1]) + 1]
    segments = [
        {"start_step": low, "end_step": int(steps[steps < high][-1]), "label": label, "label_share": 0.6875,
         "relative_slope": 0.1, "relative_change": None, "relative_churn": 1.5}
        for (low, high), label in zip(pairwise(corners), ["exploration", "refinement"] * len(corners), strict=False)
    ]  # fmt: skip
    return {
        "settings": {"alpha": 0.01, "max_changes": limit, "min_size": 5, "near_checkpoints": 5},
        "checkpoints": {"n": n, "first": int(steps[0]), "last": int(steps[-1]), "steps": steps.tolist(), "dropped": []},
        "columns": {"used": ["churn"], "dropped": {"gini": "redundant: with churn"}},
        **tests,
        "smooth_drift_suffices": not b,
        "sensitivity": [
            {
                "series": "blocks",
                "max_changes": 5,
                "min_size": 5,
                "test_a": {"changes": 4, "steps": [8, 9, 10, 11]},
                "test_b": None,
            },
            {
                "series": "metrics",
                "max_changes": 3,
                "min_size": 5,
                "test_a": {"changes": 1, "steps": [13]},
                "test_b": {"changes": 0, "steps": []},
            },
        ],
        "segments": segments,
        "recurrence": recurrence,
        "others": {
            "pelt": {"name": "PELT", "detail": "penalty 3 ln n", "steps": steps[[8, n // 2]].tolist()},
            "kernel": {"name": "KernelCPD", "detail": "penalty 5", "steps": []},
            "hmm": {
                "name": "Gaussian HMM",
                "detail": "number of states by BIC",
                "states": states,
                "steps": steps[1:][np.flatnonzero(np.diff(states, prepend=-1))].tolist(),
                "chosen": 3,
                "bic": {"1": 900.0, "2": 800.0, "3": 700.0},
            },
        },
        "behaviour": {
            "transition": dated and dated | {"plateau": 3.9, "final": 0.2},
            "boundaries": {"loss_second": [boundary(64, 60, 72)], "prefix_matching": []},
            "agreement": {
                "boundaries_at_transition": list(near) if transition else None,
                "matches": {
                    "loss_second": {"matches": 1 if a else None, "p_value": 0.05, "p_bonferroni": 0.1},
                    "prefix_matching": {"matches": None, "p_value": None, "p_bonferroni": None},
                },
            },
            "lead_lag": {"loss_second": leading(3.25, [1.5, 5.0]), "prefix_matching": leading(-2, None, p_value=0.3)},
        },
        "sentences": [],
    }


def leading(lag, interval, p_value=0.001):
    return {"lag": lag, "interval": interval, "correlation": 0.4, "p_value": p_value, "p_bonferroni": 2 * p_value,
            "p_timing": 0.05, "prompt_error": 0.2, "structure": "churn per displacement"}  # fmt: skip


def untested(n=6):
    """Contents of phases.json of a study with too few checkpoints."""
    return {
        "settings": {"alpha": 0.01, "max_changes": 3, "min_size": 5, "near_checkpoints": 5},
        "checkpoints": {"n": n, "first": 0, "last": 4 * (n - 1), "dropped": []},
        **dict.fromkeys(("columns", "test_a", "test_b", "smooth_drift_suffices", "recurrence", "others")),
        "sensitivity": [],
        "segments": [],
        "behaviour": {"transition": None, "boundaries": {}, "agreement": None, "lead_lag": None},
        "sentences": [],
    }


TWO = planted_phases(
    a=[boundary(24, 24, 28, 0.001, "abrupt"), boundary(76, 60, 92)],
    b=[boundary(24, 24, 24, 0.002, "abrupt")],
    near=[76],
)
