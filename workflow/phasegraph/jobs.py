"""What the jobs of a series and of a study need, and how many checkpoints share a job of a cluster.

Read by the Snakefile, so only the standard library is imported. All are estimates from the size of the model; where
that is unknown, a job gets `UNKNOWN_MIB` and an hour. What does not suffice grows with every attempt.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from phasegraph.edges.cost import LIBRARIES, memory_mib, nodes_of_study, seconds
from phasegraph.model.size import Size
from phasegraph.types import GROUPS

AROUND = 400
"""MiB of the two Snakemakes that stand around every job of a cluster (`--mem` counts them, too)."""
UNKNOWN_MIB = 16_000
"""MiB for a model whose size is not known."""
MOST_IN_A_JOB = 32
"""Checkpoints in one job of a cluster: with more, the job's start is no longer what costs time."""


def shards(steps: Sequence[int], each: float | None, wanted: float) -> dict[int, list[int]]:
    """Cut a series into shards: the checkpoints that one job of a cluster measures.

    Parameters
    ----------
    steps
        Steps of the series, ascending.
    each
        Estimated seconds for one checkpoint; None if unknown, and then each is a shard of its own.
    wanted
        Seconds of work that a job should have at most, unless a single checkpoint has more.

    Returns
    -------
    dict of int to list of int
        The steps of each shard, by its first.

    Examples
    --------
    >>> shards([0, 1, 2, 4, 8], each=100, wanted=250)
    {0: [0, 1], 2: [2, 4], 8: [8]}
    """
    count = 1 if each is None else max(1, min(MOST_IN_A_JOB, int(wanted / each)))
    return {steps[first]: list(steps[first : first + count]) for first in range(0, len(steps), count)}


def seconds_each(size: Size | None, study: Mapping, device: str) -> float | None:
    """Estimate the seconds for one checkpoint of a study; None where the size of the model is not known."""
    return None if size is None else seconds(size, study, device)


def edges_mib(size: Size | None, study: Mapping, budget: int) -> int:
    """Estimate the memory of a measurement, whose engine has a budget of so many MiB."""
    return AROUND + (UNKNOWN_MIB + budget if size is None else memory_mib(size, study, budget))


def edges_minutes(size: Size | None, study: Mapping, device: str) -> int:
    """Give the minutes after which a measurement may be ended: three times what is expected, and two."""
    expected = seconds_each(size, study, device)
    return 60 if expected is None else 2 + math.ceil(3 * expected / 60)


def weights_mib(size: Size | None, copies: int) -> int:
    """Estimate the memory of what holds a model's weights so many times in 32 bits."""
    return AROUND + LIBRARIES + (UNKNOWN_MIB if size is None else math.ceil(copies * size.parameters * 4 / 2**20))


def graphs_mib(size: Size | None, study: Mapping, checkpoints: int, copies: int) -> int:
    """Estimate the memory of what holds the matrices [17, N, N] of so many checkpoints, so many times in 64 bits."""
    nodes = 500 if size is None else nodes_of_study(size, study)
    return AROUND + LIBRARIES + math.ceil(checkpoints * copies * (GROUPS + 1) * nodes**2 * 8 / 2**20)


def graph_minutes(size: Size | None, study: Mapping) -> int:
    """Give the minutes after which the metrics of one checkpoint may be ended.

    Metrics with their null graphs took 20 to 30 CPU seconds with 408 nodes (benchmarks/network.py), and grow a little
    faster than the number of edges.
    """
    nodes = 500 if size is None else nodes_of_study(size, study)
    return 2 + math.ceil((nodes / 300) ** 2.5)


def gpus(device: str) -> int:
    """Count the GPUs of a measurement: for ``auto`` one where this machine has any, so that jobs share it in turn."""
    return int(device == "cuda" or (device == "auto" and Path("/proc/driver/nvidia/gpus").is_dir()))
