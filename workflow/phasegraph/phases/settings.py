"""Options of a study's change tests."""

import math
from dataclasses import dataclass

NULLS_OF = {"test_a": "constant", "test_b": "spline"}
"""What each test takes a series without a change to be."""

TESTS = {"test_a": "Test A", "test_b": "Test B"}
"""Key of a test -> what it is called."""

FEWER = 99
"""Most replicates per step in the many searches of the sensitivity table and of series without a group of prompts."""


@dataclass(frozen=True)
class Settings:
    """Options of the change tests; see `phasegraph.phases.test.phase_test`."""

    alpha: float = 0.01
    bootstraps: int = 999
    min_size: int = 5
    max_changes: int = 3
    seed: int = 0


def fewer_bootstraps(settings: Settings) -> int:
    """`FEWER` replicates, or those asked for if they are fewer; more if alpha cannot be reached with them."""
    return max(min(FEWER, settings.bootstraps), math.ceil(1 / settings.alpha) - 1)
