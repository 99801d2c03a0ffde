"""What ``phases.json`` says about change, in the form that figures and sentences need."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boundary:
    """A boundary between regimes."""

    step: int
    """First checkpoint that was reached at the new regime's rates."""
    low: int
    high: int
    """90 % interval of its place."""
    p_value: float
    abrupt: bool
    """Whether test B finds a jump there."""
    regime: bool
    """Whether test A finds a new regime there."""


@dataclass(frozen=True)
class Transition:
    """The fall of the repeated half's loss: training steps by which 10, 50 and 90 % of it are done."""

    start: int
    half: int
    end: int


def tested(phases: dict) -> bool:
    """Whether there were enough checkpoints for the change tests."""
    return phases.get("test_a") is not None


def boundaries(phases: dict) -> list[Boundary]:
    """All boundaries, by step: those of test A, and the jumps of test B that are near none of them."""
    if not tested(phases):
        return []
    taken = {jump["step"] for jump in phases["test_b"]["boundaries"] if _near_any(jump, phases)}
    jumps = [jump for jump in boundaries_of(phases, "test_b") if jump.step not in taken]
    return sorted([*boundaries_of(phases, "test_a"), *jumps], key=lambda boundary: boundary.step)


def boundaries_of(phases: dict, test: str) -> list[Boundary]:
    """Boundaries of ``test_a`` or ``test_b`` alone, by step; of a seed in ``seeds.json`` as well."""
    found = phases[test] or []
    return [_boundary(one, test == "test_a") for one in (found["boundaries"] if isinstance(found, dict) else found)]


def rate_steps(steps: np.ndarray, phases: dict) -> np.ndarray:
    """Give the steps [n] of the rates, of all steps [S] of a study: a rate ends at each kept one but the first.

    The states of a hidden Markov model are those of these steps.
    """
    dropped = [one["step"] for one in phases["checkpoints"]["dropped"]]
    return steps[~np.isin(steps, dropped)][1:]


def too_few_text(phases: dict) -> str:
    """Say in a panel why it is empty."""
    count = phases["checkpoints"]["n"]
    return f"not tested: {count} checkpoint{' is' if count == 1 else 's are'} too few"


def transition(phases: dict) -> Transition | None:
    """Give the transition of behaviour, None if none is dated."""
    return dated_transition((phases.get("behaviour") or {}).get("transition"))


def dated_transition(dated: dict | None) -> Transition | None:
    """Give a transition of behaviour as ``phases.json`` and ``seeds.json`` date it."""
    return Transition(dated["start"], dated["half"], dated["end"]) if dated else None


def _boundary(found: dict, regime: bool) -> Boundary:
    low, high = found["interval_steps"]
    return Boundary(found["step"], low, high, found["p_value"], found["kind"] == "abrupt", regime)


def _near_any(jump: dict, phases: dict) -> bool:
    """Whether a regime of test A begins there, by the same rule by which the phases stage calls it abrupt."""
    near = phases["settings"]["near_checkpoints"]
    return any(abs(jump["index"] - found["index"]) <= near for found in phases["test_a"]["boundaries"])
