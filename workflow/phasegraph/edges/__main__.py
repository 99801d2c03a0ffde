"""``python -m phasegraph.edges``: measure one checkpoint's edges and its behaviour, in one load of the model.

Of a checkpoint that is missing, cannot be read or holds NaNs all results are empty files. The audit names such a
checkpoint and leaves it out, so that nothing asks for them.
"""

import argparse
import json
import os
import time

import numpy as np
import torch

from phasegraph.edges.engine import measure_edges
from phasegraph.edges.memory import BUDGET, keep_freed_memory
from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.model.device import device_of, memory_for, set_arithmetic
from phasegraph.model.load import components_of, read
from phasegraph.model.nodes import describe_graph, mask_of, nodes_of
from phasegraph.series.fault import CheckpointFault
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.induction import Task, induction
from phasegraph.types import Answer, Intervention, Measure, Measurement


def main() -> None:
    """Read the command line, measure, and write each result whole or not at all."""
    arguments = _arguments()
    with memory_for(arguments.checkpoint):
        _measure(arguments)


def _measure(arguments: argparse.Namespace) -> None:
    study = json.loads(arguments.study)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    begin = time.perf_counter()
    device = device_of(arguments.device)
    set_arithmetic(device)
    try:
        model = read(arguments.checkpoint, getattr(torch, study["dtype"]), device)
    except CheckpointFault as fault:
        print(f"not measured: {fault}")
        for path in filter(None, (arguments.total, arguments.direct, arguments.more, arguments.behaviour)):
            with atomic(path) as temporary:
                temporary.touch()
        return
    task = _task(study["task"], model.config.vocab_size)
    measurement = _measurement(study, direct=arguments.direct is not None)
    try:
        behaves = behaviour(model, task)  # first, because the components may take the model apart
        components = components_of(model, task.tokens.shape[1])
        found = measure_edges(components, task, measurement, memory_budget=arguments.memory_budget * 2**20)
    except PhasegraphError as error:
        raise PhasegraphError(f"{arguments.checkpoint}: {error}") from error
    nodes = nodes_of(components.n_layers, components.n_heads, embed=measurement.embed, logits=measurement.logits)
    for name in [name for name in found if name.startswith("answer.")]:
        behaves[name.replace(".", "_").replace("-", "_")] = found.pop(name)
    with atomic(arguments.behaviour) as temporary:
        np.savez(temporary, **behaves, nodes=[node.name for node in nodes], settings=arguments.study)
    for name, path in (("total", arguments.total), ("direct", arguments.direct)):
        if path is not None:
            with atomic(path) as temporary:
                np.save(temporary, found.pop(name))
    graph = describe_graph(nodes, mask_of(nodes, components.parallel))
    with atomic(arguments.more) as temporary:
        np.savez(temporary, **found, **graph)
    print(f"{arguments.checkpoint}: {len(nodes)} nodes in {time.perf_counter() - begin:.2f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="phasegraph.edges", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--study", required=True, help="JSON: task, intervention, measure, nodes, ... of a study")
    parser.add_argument("--total", required=True, help="total effects to write (.npy, float32 [17, N, N])")
    parser.add_argument("--direct", help="direct effects to write, if wanted")
    parser.add_argument("--more", required=True, help="nodes, mask, and all other matrices of the study (.npz)")
    parser.add_argument("--behaviour", required=True, help="behaviour to write (.npz)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--memory-budget", type=int, default=BUDGET // 2**20, help="MiB for the engine's tensors")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    return parser.parse_args()


def _measurement(study: dict, *, direct: bool) -> Measurement:
    """Read what a study's configuration asks for."""
    return Measurement(
        intervention=Intervention(study["intervention"]),
        measure=Measure(study["measure"]),
        direct=direct,
        embed=study["nodes"]["embed"],
        logits=study["nodes"]["logits"],
        qkv=study["qkv"],
        by_position=study["by_position"],
        control=study["control"],
        answer=tuple(map(Answer, study["answer"])),
    )


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
        answers=settings["answers"],
        tokens=settings["tokens"],
    )


if __name__ == "__main__":
    with user_errors():
        main()
