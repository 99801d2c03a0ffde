"""A study's phases, from its tables to ``phases.json``.

Two tests are run on the same rates. Test A asks for regimes against autocorrelated noise around a level; test B asks
for jumps against autocorrelated noise around a smooth trend along the arc length in weight space. Segmenting a smooth
process also gives regimes, so only B speaks for phases.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from phasegraph.files import atomic
from phasegraph.phases.behaviour import NEAR, circular_shift_p, near_transition, transition
from phasegraph.phases.labels import label_segments
from phasegraph.phases.rates import Rates, rates
from phasegraph.phases.sentences import sentences
from phasegraph.phases.tables import LOSS, Tables, read_tables
from phasegraph.phases.test import QUANTILES, PhaseTest, least_points, phase_test

SENSITIVITY_BOOTSTRAPS = 199
"""Most replicates per step of the sensitivity table (more if alpha cannot be reached with them)."""

SENSITIVITY_CHANGES = (3, 5)
SENSITIVITY_SIZES = (3, 5, 8)


@dataclass(frozen=True)
class Settings:
    """Options of the change tests; see `phasegraph.phases.test.phase_test`."""

    alpha: float = 0.01
    bootstraps: int = 999
    min_size: int = 5
    max_changes: int = 3
    seed: int = 0


def run_study(metrics: Path, behaviour: Path, manifest: Path, out: Path, settings: Settings) -> dict:
    """Test one study for changes of regime and write what was found.

    Parameters
    ----------
    metrics, behaviour, manifest
        See `phasegraph.phases.tables.read_tables`.
    out
        ``phases.json`` to write.
    settings
        Options of the tests.

    Returns
    -------
    dict
        What was written; with too few checkpoints for a test, ``test_a`` and ``test_b`` are None. Every ``index``
        counts the kept checkpoints from 0, and a boundary is the first checkpoint that was reached at the new
        regime's rates.

    Raises
    ------
    PhasegraphError
        If an input or an option is not what it should be.
    """
    tables = read_tables(metrics, behaviour, manifest)
    found = {
        "settings": asdict(settings) | {"path_effect": str(tables.path_effect), "near_checkpoints": NEAR},
        "checkpoints": {
            "n": len(tables.steps),
            "first": tables.steps[0],
            "last": tables.steps[-1],
            "dropped": [{"step": step, "why": why} for step, why in tables.left_out.items()],
        },
    }
    if len(tables.steps) <= least_points(settings.min_size):  # one rate fewer than checkpoints
        found |= {"columns": None, "test_a": None, "test_b": None, "smooth_drift_suffices": None, "sensitivity": []}
        found |= {"segments": [], "behaviour": {"transition": _dated(tables), "boundaries": {}, "agreement": None}}
    else:
        found |= _tests(tables, settings)
    found["sentences"] = sentences(found)
    found = plain(found)
    with atomic(out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def _tests(tables: Tables, settings: Settings) -> dict:
    """Run both tests on the structure's rates, and what hangs on them."""
    structure = rates(
        tables.steps, tables.arc_length, tables.levels, {"churn": tables.churn["churn"]}, settings.min_size
    )
    test_a = _test(structure.values, "constant", tables, settings)
    test_b = _test(structure.values, "spline2", tables, settings)
    kinds = ["abrupt" if any(abs(a - b) <= NEAR for b in test_b.boundaries) else "gradual" for a in test_a.boundaries]
    return {
        "columns": {"used": structure.columns, "dropped": structure.dropped | tables.undefined},
        "test_a": _search(test_a, structure, kinds),
        "test_b": _search(test_b, structure, ["abrupt"] * len(test_b.boundaries)),
        "smooth_drift_suffices": not test_b.boundaries,
        "sensitivity": _sensitivity(structure, tables, settings),
        "segments": _segments(tables, test_a),
        "behaviour": _behaviour(tables, test_a, settings),
    }


def plain(value: object) -> object:
    """Turn numpy into Python, round to 6 significant digits, and write None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _test(values: np.ndarray, null: str, tables: Tables, settings: Settings, **changed: int) -> PhaseTest:
    return phase_test(values, null=null, axis=tables.arc_length[1:], **(asdict(settings) | changed))


def _boundaries(test: PhaseTest, of: Rates) -> list[dict]:
    return [
        {
            "step": of.steps[boundary],
            "index": boundary + 1,  # the first rate is that of reaching the second checkpoint
            "p_value": p_value,
            "interval_steps": [of.steps[low], of.steps[high]],
        }
        for boundary, p_value, (low, high) in zip(test.boundaries, test.boundary_p_values, test.intervals, strict=True)
    ]


def _search(test: PhaseTest, of: Rates, kinds: Sequence[str]) -> dict:
    return {
        "boundaries": [at | {"kind": kind} for at, kind in zip(_boundaries(test, of), kinds, strict=True)],
        "p_values": test.p_values,
        "search": [
            {
                "best_step": of.steps[step.best],
                "p_value": step.p_value,
                "ar": dict(zip(of.columns, step.ar, strict=True)),
                "steps": of.steps[list(step.splits)],
                "gains": step.gains,
                "quantiles": {str(q): value for q, value in zip(QUANTILES, step.quantiles, strict=True)},
            }
            for step in test.steps
        ],
        "ar": dict(zip(of.columns, test.ar, strict=True)),
    }


def _sensitivity(structure: Rates, tables: Tables, settings: Settings) -> list[dict]:
    """Count and place the boundaries under other limits of the search."""
    bootstraps = max(min(SENSITIVITY_BOOTSTRAPS, settings.bootstraps), math.ceil(1 / settings.alpha) - 1)
    variants = [{"max_changes": k, "min_size": settings.min_size} for k in SENSITIVITY_CHANGES]
    variants += [{"max_changes": settings.max_changes, "min_size": size} for size in SENSITIVITY_SIZES]
    variants = [variant for i, variant in enumerate(variants) if variant not in variants[:i]]
    rows = []
    for variant in variants:
        row: dict = dict(variant) | {"bootstraps": bootstraps}
        for name, null in (("test_a", "constant"), ("test_b", "spline2")):
            if len(structure.values) < 2 * variant["min_size"]:
                row[name] = None
                continue
            test = _test(structure.values, null, tables, settings, bootstraps=bootstraps, **variant)
            row[name] = {"changes": len(test.boundaries), "steps": structure.steps[list(test.boundaries)]}
        rows.append(row)
    return rows


def _segments(tables: Tables, test: PhaseTest) -> list[dict]:
    displacement = np.diff(tables.arc_length, prepend=np.nan)  # [N]
    segments = label_segments(
        tables.levels["gini"],
        tables.churn["excess_churn"] / displacement,
        tables.churn["noise_floor"] / displacement,
        [boundary + 1 for boundary in test.boundaries],
    )
    return [
        {
            "start_step": tables.steps[segment.start],
            "end_step": tables.steps[segment.end],
            "label": segment.label,
            "relative_slope": segment.slope,
            "relative_change": segment.change,
            "relative_churn": segment.churn,
        }
        for segment in segments
    ]


def _behaviour(tables: Tables, test_a: PhaseTest, settings: Settings) -> dict:
    """Find changes of behaviour, each quantity by itself, and compare them with test A's boundaries.

    The same logarithmic rates are tested as of the structure, so that the same kind of event is compared. Signed rates
    would find nothing: a fall between two plateaus is then a burst, two opposing steps that each gain little, while the
    logarithm also tells a plateau's restlessness from its calm.
    """
    change = transition(tables.behaviour[LOSS])
    structural = [boundary + 1 for boundary in test_a.boundaries]  # as checkpoints
    boundaries, matches = {}, {}
    for quantity, values in tables.behaviour.items():
        rate = rates(tables.steps, tables.arc_length, {quantity: values}, min_size=settings.min_size)
        test = _test(rate.values, "constant", tables, settings)
        boundaries[quantity] = _boundaries(test, rate)
        match = circular_shift_p(test_a.boundaries, test.boundaries, len(rate.values))
        count, p_value = match or (None, None)
        corrected = None if p_value is None else min(1.0, p_value * len(tables.behaviour))
        matches[quantity] = {"matches": count, "p_value": p_value, "p_bonferroni": corrected}
    near = near_transition(structural, change) if change else []
    at_transition = [tables.steps[index] for index, is_near in zip(structural, near, strict=False) if is_near]
    return {
        "transition": _dated(tables),
        "boundaries": boundaries,
        "agreement": {"boundaries_at_transition": at_transition if change else None, "matches": matches},
    }


def _dated(tables: Tables) -> dict | None:
    """Date the transition of behaviour in training steps."""
    change = transition(tables.behaviour[LOSS])
    return change and {
        "start": tables.steps[change.start],
        "half": tables.steps[change.half],
        "end": tables.steps[change.end],
        "plateau": change.plateau,
        "final": change.final,
    }
