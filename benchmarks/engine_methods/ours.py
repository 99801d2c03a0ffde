"""phasegraph's engine, whole or stopped after its first chunk of prompts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.engine import measure_edges
from phasegraph.model.components import Components
from phasegraph.tasks.induction import Task
from phasegraph.types import Intervention, Measure, Measurement


def measured(
    components: Components,
    task: Task,
    *,
    direct: bool,
    intervention: Intervention = Intervention.MEAN,
    measure: Measure = Measure.VARIANCE,
    memory_budget: int | None = None,
) -> dict[str, np.ndarray]:
    """Measure total effects, and direct ones too if wanted: {"total": [17, N, N], "direct": [17, N, N]}."""
    options = {} if memory_budget is None else {"memory_budget": memory_budget}
    measurement = Measurement(intervention=intervention, measure=measure, direct=direct)
    return measure_edges(components, task, measurement, **options)


class _Enough(Exception):
    """The engine has come as far as it shall."""


def prompts_per_chunk(components: Components, task: Task, **how) -> int:
    """Find how many prompts the engine takes at a time, by the first chunk that it embeds."""
    found = []

    def look(tokens: Tensor) -> None:
        if torch.equal(tokens[0], torch.from_numpy(task.tokens[0])):
            found.append(len(tokens))
            raise _Enough

    _until_enough(components, task, look, **how)
    return found[0]


def small_budget(components: Components, task: Task, wanted: int) -> tuple[int, int]:
    """Find the largest memory budget under which the engine takes at most `wanted` prompts at a time.

    Returns
    -------
    tuple of int
        The budget in bytes and the prompts in a chunk.
    """
    budget = 2**30
    while (number := prompts_per_chunk(components, task, direct=True, memory_budget=budget)) > wanted:
        budget = budget * 9 // 10
    return budget, number


def first_prompts(components: Components, task: Task, number: int, **how) -> None:
    """Run the engine until it has done with the first `number` prompts, and takes up the next."""
    following = torch.from_numpy(task.tokens[number])

    def look(tokens: Tensor) -> None:
        if torch.equal(tokens[0], following):
            raise _Enough

    _until_enough(components, task, look, **how)


def _until_enough(components: Components, task: Task, look: Callable[[Tensor], None], **how) -> None:
    """Run the engine with an embedding that looks at the prompts first."""

    def embed(tokens: Tensor) -> Tensor:
        look(tokens)
        return components.embed(tokens)

    try:
        measured(replace(components, embed=embed), task, **how)
    except _Enough:
        return
    raise RuntimeError("the engine took all prompts at once; nothing to scale from")
