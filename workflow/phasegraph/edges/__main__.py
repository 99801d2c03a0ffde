"""``python -m phasegraph.edges``: measure one checkpoint's edges and its behaviour, in one load of the model."""

import argparse
import json
import os
import time

import numpy as np
import torch

from phasegraph.edges.engine import measure_edges
from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.model.load import components_of, read
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.induction import Task, induction
from phasegraph.types import Effect, Intervention, Measure


def main() -> None:
    """Read the command line, measure, and write each result whole or not at all."""
    parser = argparse.ArgumentParser(prog="phasegraph.edges", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--study", required=True, help="JSON: task, intervention, measure")
    parser.add_argument("--total", required=True, help="total effects to write (.npy, float32 [17, N, N])")
    parser.add_argument("--direct", help="direct effects to write, if wanted")
    parser.add_argument("--behaviour", required=True, help="behaviour to write (.npz)")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    arguments = parser.parse_args()
    study = json.loads(arguments.study)
    torch.set_num_threads(arguments.threads)
    begin = time.perf_counter()
    model = read(arguments.checkpoint)
    task = _task(study["task"], model.config.vocab_size)
    behaves = behaviour(model, task)  # first, because the components may take the model apart
    components = components_of(model, task.tokens.shape[1])
    effects = (Effect.TOTAL, Effect.DIRECT) if arguments.direct else (Effect.TOTAL,)
    edges = measure_edges(
        components,
        torch.from_numpy(task.tokens),
        torch.from_numpy(task.reference),
        intervention=Intervention(study["intervention"]),
        measure=Measure(study["measure"]),
        effects=effects,
        first_position=task.first_position,
    )
    with atomic(arguments.behaviour) as temporary:
        np.savez(temporary, **behaves)
    for effect, path in zip(effects, (arguments.total, arguments.direct), strict=False):
        with atomic(path) as temporary:
            np.save(temporary, edges[effect])
    print(f"{arguments.checkpoint}: {len(edges[Effect.TOTAL][0])} nodes in {time.perf_counter() - begin:.2f} s")


def _task(settings: dict, vocabulary: int) -> Task:
    """Draw the prompts that a study's configuration describes, for a model of this vocabulary."""
    start = settings["start_token"]
    low, high = settings["token_range"] or (0 if start is None else start + 1, vocabulary)
    if high > vocabulary:
        raise PhasegraphError(f"task.token_range ends at {high}, but the model has {vocabulary} tokens")
    return induction(
        prompts=settings["prompts"],
        reference=settings["reference"],
        segment=settings["segment"],
        seed=settings["seed"],
        start_token=start,
        token_range=(low, high),
    )


if __name__ == "__main__":
    with user_errors():
        main()
