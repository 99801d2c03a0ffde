"""Which checkpoints stand for all where there is no room, or no time, for all."""

import numpy as np


def spread_out(count: int, wanted: int) -> list[int]:
    """Places of at most `wanted` of `count` checkpoints, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist()
