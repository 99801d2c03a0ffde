"""What ``phases.json`` says about change, in the form that figures and sentences need."""

from dataclasses import dataclass


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
    regimes = [_boundary(found, True) for found in phases["test_a"]["boundaries"]]
    taken = {jump["step"] for jump in phases["test_b"]["boundaries"] if _near_any(jump, phases)}
    jumps = [_boundary(jump, False) for jump in phases["test_b"]["boundaries"] if jump["step"] not in taken]
    return sorted([*regimes, *jumps], key=lambda boundary: boundary.step)


def transition(phases: dict) -> Transition | None:
    """Give the transition of behaviour, None if none is dated."""
    dated = (phases.get("behaviour") or {}).get("transition")
    return Transition(dated["start"], dated["half"], dated["end"]) if dated else None


def _boundary(found: dict, regime: bool) -> Boundary:
    low, high = found["interval_steps"]
    return Boundary(found["step"], low, high, found["p_value"], found["kind"] == "abrupt", regime)


def _near_any(jump: dict, phases: dict) -> bool:
    """Whether a regime of test A begins there, by the same rule by which the phases stage calls it abrupt."""
    near = phases["settings"]["near_checkpoints"]
    return any(abs(jump["index"] - found["index"]) <= near for found in phases["test_a"]["boundaries"])
