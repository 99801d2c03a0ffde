"""Out of memory: the measurement begins again in smaller pieces."""

import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from phasegraph.edges.memory import Cuts, release_memory
from phasegraph.errors import PhasegraphError
from phasegraph.model.device import is_out_of_memory, shortage

SMALLEST = Cuts(prompts=1, sources=1, rows=1)

Result = TypeVar("Result")


class Cutter(Protocol):
    """`phasegraph.edges.memory.cut` of one model and task."""

    def __call__(self, *, budget: int, tokens_per_call: int) -> Cuts:
        """Give the sizes for a memory budget in bytes and a number of tokens in one call of a layer."""


def in_pieces_that_fit(measure: Callable[[Cuts], Result], cut: Cutter, budget: int, tokens_per_call: int) -> Result:
    """Measure, and each time that memory runs out, once more from the beginning with half the budget.

    Parameters
    ----------
    measure
        The whole measurement, which keeps nothing if it fails.
    cut
        Gives the sizes of its pieces.
    budget, tokens_per_call
        The first ones to try.

    Returns
    -------
    Result
        What `measure` gives. A line on standard error names each budget that was too large.

    Raises
    ------
    PhasegraphError
        If there is no memory even for one prompt and one ablation at a time.
    """
    cuts = cut(budget=budget, tokens_per_call=tokens_per_call)
    while True:
        try:
            return measure(cuts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            why = shortage(error)
        # Only here, after the except block, has the traceback gone that holds what was allocated before the failure.
        release_memory()
        if cuts == SMALLEST:
            raise PhasegraphError(
                f"out of memory ({why}) even with one prompt and one ablation at a time, which a smaller "
                "model.memory_budget cannot mend; give the job or the card more memory or take a shorter task.segment"
            )
        if "primitive" in why:  # oneDNN makes none any more in this process, whatever memory there is
            torch.backends.mkldnn.set_flags(False)
        tried, failed = _told(budget, cuts), cuts
        while cuts == failed:  # half of a budget that is larger than needed may change nothing
            budget, tokens_per_call = budget // 2, max(1, tokens_per_call // 2)
            cuts = _cuts_or_smallest(cut, budget, tokens_per_call)
        again = _told(budget, cuts)
        print(f"out of memory ({why}) with {tried}; beginning again with {again}", file=sys.stderr, flush=True)


def _cuts_or_smallest(cut: Cutter, budget: int, tokens_per_call: int) -> Cuts:
    # The error of a budget that is too small is for users who set it; its estimate is generous, the smallest may fit.
    try:
        return cut(budget=budget, tokens_per_call=tokens_per_call)
    except PhasegraphError:
        return SMALLEST


def _told(budget: int, cuts: Cuts) -> str:
    pieces = f"prompts {cuts.prompts}, ablations {cuts.sources}, ablations in a call {cuts.rows}"
    return f"model.memory_budget at {budget / 2**20:.0f} MiB ({pieces})"
