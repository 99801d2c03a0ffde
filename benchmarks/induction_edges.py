"""How much the edges from the previous-token head to the induction heads grow over the transition, seed by seed.

    python benchmarks/induction_edges.py            # seeds 0 to 4; about 90 s of one core each

In some runs one head of layer 0 attends to the previous token, in others three share the work; a single edge then
carries less. The demonstration takes seed 1, a run of the first kind.
"""

import sys
import tempfile

import numpy as np
import torch

from phasegraph.edges.engine import measure_edges
from phasegraph.jackknife import delete_group
from phasegraph.model.load import components_of, read
from phasegraph.series.recipe import Recipe
from phasegraph.series.training import train
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.induction import induction
from phasegraph.types import Measurement

BEFORE, LAST = 200, 572


def measure(seed: int, store: str) -> str:
    folder = train(Recipe(seed=seed), [BEFORE, LAST], store)
    task = induction(prompts=32, reference=32, segment=15, token_range=(1, 64))
    behaviours, edges = {}, {}
    for step in (BEFORE, LAST):
        model = read(folder / str(step))
        behaves = behaviour(model, task)
        components = components_of(model, task.tokens.shape[1])
        behaviours[step] = behaves
        edges[step] = measure_edges(components, task, Measurement(direct=False))["total"]
    previous = behaviours[LAST]["previous_token"][0]  # [L, H]
    layer, head = np.unravel_index(previous.argmax(), previous.shape)
    targets = np.argwhere(behaviours[LAST]["prefix_matching"][0] > 0.3) @ [5, 1]
    before, last = (edges[step][:, layer * 5 + head, targets].mean(1) for step in (BEFORE, LAST))  # [17] each
    ratio = delete_group(last / before)
    shared = int((previous > 0.5).sum())
    return (
        f"{seed:4d}  L{layer}H{head} {previous.max():.2f}  {shared:5d}  {before[0]:.4f} -> {last[0]:.4f}"
        f"  {ratio.estimate:5.1f} [{ratio.low:.1f}, {ratio.high:.1f}]"
    )


def main() -> None:
    torch.set_num_threads(1)
    print("seed  head and score  heads > .5  mean edge, step 200 -> 572  ratio [90 %]")
    for seed in map(int, sys.argv[1:] or range(5)):
        with tempfile.TemporaryDirectory() as store:
            print(measure(seed, store), flush=True)


if __name__ == "__main__":
    main()
