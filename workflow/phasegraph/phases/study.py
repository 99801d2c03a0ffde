"""A study's phases, from its tables to ``phases.json``.

Two tests are run on the same rates, the speeds of the blocks. Test A asks for regimes against autocorrelated noise
around a level; test B asks for jumps against autocorrelated noise around a smooth trend along the arc length in weight
space. Segmenting a smooth process also gives regimes, so only B speaks for phases.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.phases.behaviour import NEAR, circular_shift_p, near_transition, transition
from phasegraph.phases.labels import Segment
from phasegraph.phases.leads import lead_lag, least_checkpoints
from phasegraph.phases.others import others
from phasegraph.phases.rates import Rates, block_rates, rates
from phasegraph.phases.recurrence import boundaries_by_group, label_shares, recurrence, segments_between
from phasegraph.phases.sentences import sentences
from phasegraph.phases.settings import NULLS_OF, Settings, fewer_bootstraps
from phasegraph.phases.tables import LOSS, Files, Tables, read_tables
from phasegraph.phases.test import QUANTILES, PhaseTest, both_tests, least_points, phase_test
from phasegraph.types import GROUPS

SENSITIVITY_CHANGES = (3, 5)
SENSITIVITY_SIZES = (3, 5, 8)


def run_study(files: Files, out: Path, settings: Settings) -> dict:
    """Test one study for changes of regime and write what was found.

    Parameters
    ----------
    files
        What is read.
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
    tables = read_tables(files)
    found = {
        "settings": asdict(settings) | {"path_effect": str(tables.path_effect), "near_checkpoints": NEAR},
        "checkpoints": {
            "n": len(tables.steps),
            "first": tables.steps[0],
            "last": tables.steps[-1],
            "steps": tables.steps,
            "dropped": [{"step": step, "why": why} for step, why in tables.left_out.items()],
        },
    }
    if len(tables.steps) <= least_points(settings.min_size):  # one rate fewer than checkpoints
        found |= dict.fromkeys(("columns", "test_a", "test_b", "smooth_drift_suffices", "recurrence", "others"))
        found |= {"sensitivity": [], "segments": []}
        found |= {"behaviour": {"transition": _dated(tables), "boundaries": {}, "agreement": None, "lead_lag": None}}
    else:
        found |= _tests(tables, settings)
    found["sentences"] = sentences(found)
    found = plain(found)
    with atomic(out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def _tests(tables: Tables, settings: Settings) -> dict:
    """Run both tests on the structure's rates, and what hangs on them."""
    structure = block_rates(tables.steps, tables.arc_length, tables.blocks, 0, settings.min_size)
    tests = both_tests(structure.values, tables.arc_length[1:], settings)
    test_a, test_b = tests.values()
    kinds = ["abrupt" if any(abs(a - b) <= NEAR for b in test_b.boundaries) else "gradual" for a in test_a.boundaries]
    by_group = boundaries_by_group(tables, settings)
    segments = segments_between([boundary + 1 for boundary in test_a.boundaries], tables)
    return {
        "columns": {"used": structure.columns, "dropped": structure.dropped | tables.undefined},
        "test_a": _search(test_a, structure, kinds),
        "test_b": _search(test_b, structure, ["abrupt"] * len(test_b.boundaries)),
        "smooth_drift_suffices": not test_b.boundaries,
        "recurrence": _recurrence(tests, by_group, tables),
        "sensitivity": _sensitivity(structure, tables, settings),
        "segments": _described(segments, label_shares(segments, tables, by_group["test_a"]), tables),
        "others": others(structure.values, structure.steps, settings.min_size, settings.seed),
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


def _recurrence(tests: dict[str, PhaseTest], by_group: dict[str, list[list[int]]], tables: Tables) -> dict:
    return {
        "groups": GROUPS,
        **{
            name: recurrence([boundary + 1 for boundary in test.boundaries], by_group[name], tables.steps)
            for name, test in tests.items()
        },
        "all": {name: [tables.steps[found] for found in every] for name, every in by_group.items()},
    }


def _sensitivity(structure: Rates, tables: Tables, settings: Settings) -> list[dict]:
    """Count and place the boundaries under other limits of the search, and in the rates of whole-graph metrics."""
    limits = {"max_changes": settings.max_changes, "min_size": settings.min_size}
    variants = [limits | {"max_changes": k} for k in SENSITIVITY_CHANGES]
    variants += [limits | {"min_size": size} for size in SENSITIVITY_SIZES]
    variants = [("blocks", variant) for i, variant in enumerate(variants) if variant not in variants[:i]]
    series = {"blocks": structure, "metrics": _metric_rates(tables, settings)}
    rows = []
    for name, variant in [*variants, ("metrics", limits)]:
        row: dict = {"series": name} | variant | {"bootstraps": fewer_bootstraps(settings)} | dict.fromkeys(NULLS_OF)
        of = series[name]
        if of is not None and len(of.values) >= least_points(variant["min_size"]):
            options = variant | {"bootstraps": row["bootstraps"], "locate": False}
            for test, result in both_tests(of.values, tables.arc_length[1:], settings, **options).items():
                row[test] = {"changes": len(result.boundaries), "steps": of.steps[list(result.boundaries)]}
        rows.append(row)
    return rows


def _metric_rates(tables: Tables, settings: Settings) -> Rates | None:
    """Rates of the metrics of the whole graph, None if none of them changes."""
    churn = {"churn": tables.churn["churn"]}
    try:
        return rates(tables.steps, tables.arc_length, tables.levels, churn, settings.min_size)
    except PhasegraphError:
        return None


def _described(segments: Sequence[Segment], shares: Sequence[float], tables: Tables) -> list[dict]:
    return [
        {
            "start_step": tables.steps[segment.start],
            "end_step": tables.steps[segment.end],
            "label": segment.label,
            "label_share": share,
            "relative_slope": segment.slope,
            "relative_change": segment.change,
            "relative_churn": segment.churn,
        }
        for segment, share in zip(segments, shares, strict=True)
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
        test = phase_test(rate.values, axis=tables.arc_length[1:], **asdict(settings))
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
        "lead_lag": _lead_lag(tables, settings),
    }


def _lead_lag(tables: Tables, settings: Settings) -> dict | None:
    """Say which moves first, churn or a behaviour; None where that cannot be asked."""
    if len(tables.steps) < least_checkpoints():
        return None
    churn, rows = tables.churn["churn"], {}
    for quantity, values in tables.behaviour.items():
        try:
            found = lead_lag(
                churn, values, tables.arc_length, structure_replicates=tables.replicates["churn"], seed=settings.seed
            )
        except PhasegraphError:  # the quantity never changes
            rows[quantity] = None
            continue
        rows[quantity] = asdict(found) | {
            "interval": None if found.low is None else [found.low, found.high],
            "p_bonferroni": min(1.0, found.p_value * len(tables.behaviour)),
            "structure": "churn per weight displacement",
        }
    return rows


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
