"""What it costs to measure one checkpoint, before it is measured (the standard library only).

FLOPs follow from the engine's schedule (`phasegraph.edges.walks`): they are counted, not fitted. Seconds and memory
have constants fitted to measurements. docs/scaling.md shows how well they predict.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from phasegraph.model.size import Size
from phasegraph.types import GROUPS

SECONDS = {
    "flop": 6.7e-12,
    "flop by width": 2.4e-9,
    "logit": 1.4e-8,
    "byte of weights": 6.1e-9,
    "job": 0.11,
}
"""CPU seconds of one thread for each unit of `work`: what `python benchmarks/scaling.py --fit` gives, rounded.

The first two make the rate of a layer's matrix products and all that goes with them: 1 / ("flop" + "flop by width" / D)
FLOP/s at width D. Products take time in proportion to D^2; norms, activations, softmax and differences to D.
"""

ASSUMED_CUDA_FLOPS = {"float32": 15e12, "float16": 150e12, "bfloat16": 150e12}
"""FLOP/s of an A100 by format. ASSUMED, not measured; twice as fast or half as fast would be no surprise."""
ASSUMED_CUDA_START = 5.0
"""Seconds in which a job begins on a GPU. ASSUMED, not measured."""

LIBRARIES = 600
"""MiB of a process with all libraries, and no model yet."""

MARGIN = 1.1
"""By how much more memory is predicted than the parts add up to: what is freed is not always given back."""

QUERIES = 64
"""As `phasegraph.model.neox.QUERIES`."""
ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number by format."""


def length_of(task: Mapping) -> int:
    """Positions T of a prompt: a segment twice, and the start token if there is one."""
    return 2 * task["segment"] + (task["start_token"] is not None)


def nodes_of_study(size: Size, study: Mapping) -> int:
    """Nodes N: heads and MLPs, and the embedding and the logits where the study has them."""
    return size.layers * (size.heads + 1) + study["nodes"]["embed"] + study["nodes"]["logits"]


def flops(size: Size, study: Mapping) -> int:
    """Count the FLOPs of one checkpoint's matrix products.

    Parameters
    ----------
    size
        The model.
    study
        A study of the configuration, with its defaults filled in.

    Returns
    -------
    int
        Two for each multiplication and addition.
    """
    return sum(flops_by_part(size, study).values())


def flops_by_part(size: Size, study: Mapping) -> dict[str, int]:
    """Count FLOPs by what they are for.

    Parameters
    ----------
    size, study
        As in `flops`.

    Returns
    -------
    dict of str to int
        ``behaviour`` (the model itself on all prompts), ``check`` (its parts compared with it), ``clean`` (undisturbed
        passes, those for means and corrupted prompts too), ``contributions`` (what each ablation takes away),
        ``total``, ``direct``, ``control``, ``readout`` (the logits, as a node or of the answer), and ``unembedding``
        (of the behaviour and the check, whose other parts stop before it).
    """
    task, length = study["task"], length_of(study["task"])
    prompts, walks = task["prompts"], (1 + study["direct"]) * (1 + study["control"])
    passes = prompts * (2 if study["intervention"] == "resample" else 1) + task["reference"]
    call = _calls(size, length)
    total, direct = _total(size, study, call), _direct(size, study, call, study["qkv"])
    again = total + study["direct"] * _direct(size, study, call, False)
    checked, unembedded = _check(size, call)
    return {
        "behaviour": prompts * size.layers * call.model,
        "check": checked,
        "clean": passes * size.layers * (call.attention + call.project + call.mlp),
        "contributions": prompts * walks * size.layers * call.product,
        "total": prompts * total,
        "direct": prompts * direct * study["direct"],
        "control": prompts * again * study["control"],
        "readout": _readout(size, study, length),
        "unembedding": (prompts + unembedded) * 2 * length * size.width * size.vocabulary,
    }


def seconds(size: Size, study: Mapping, device: str = "cpu") -> float:
    """Predict the seconds of one checkpoint's job, whose libraries are already imported.

    Parameters
    ----------
    size, study
        As in `flops`.
    device
        ``cpu`` for the CPU seconds of one thread, ``cuda`` for seconds on a GPU at ASSUMED, not measured rates.

    Returns
    -------
    float
        Seconds.
    """
    amounts = work(size, study)
    if device == "cuda":
        found = sum(SECONDS[unit] * amounts[unit] for unit in ("byte of weights", "job"))
        return found + ASSUMED_CUDA_START + amounts["flop"] / ASSUMED_CUDA_FLOPS[study["dtype"]]
    return sum(SECONDS[unit] * amount for unit, amount in amounts.items())


def work(size: Size, study: Mapping) -> dict[str, float]:
    """Count what takes time in one checkpoint's job.

    Parameters
    ----------
    size, study
        As in `flops`.

    Returns
    -------
    dict of str to float
        ``flop``; ``flop by width``, those of the layers over the width; ``logit`` of behaviour and answer; ``byte of
        weights`` in the run's format, which are read, searched for NaNs, rearranged and compared; and one ``job``.
    """
    parts = flops_by_part(size, study)
    return {
        "flop": sum(parts.values()),
        "flop by width": (sum(parts.values()) - parts["unembedding"]) / size.width,
        "logit": _logits(size, study),
        "byte of weights": size.parameters * ITEM[study["dtype"]],
        "job": 1,
    }


def memory_mib(size: Size, study: Mapping, budget_mib: int, bits: int = 32) -> int:
    """Bound the resident memory of one checkpoint's job on a CPU.

    Parameters
    ----------
    size, study
        As in `flops`.
    budget_mib
        ``model.memory_budget``: MiB for the engine's tensors.
    bits
        Of a weight in the checkpoint's file.

    Returns
    -------
    int
        MiB.
    """
    item, nodes = ITEM[study["dtype"]], nodes_of_study(size, study)
    weights = size.parameters * item
    folded = size.layers * size.block_weights * item if size.family == "gpt_neox" else 0
    sums = GROUPS * nodes**2 * 8 * _matrices(study)
    results = (GROUPS + 1) * nodes**2 * (4 * _matrices(study) + 4 * 8)  # and what a division needs in between
    measuring = folded + min(budget_mib * 2**20, _engine_bytes(size, study)) + sums + results
    peak = weights + max(weights_bytes(size, bits), _behaviour_bytes(size, study), measuring)
    return round(MARGIN * (LIBRARIES + peak / 2**20))


def storage_bytes(size: Size, study: Mapping) -> int:
    """Count the bytes that one checkpoint leaves in ``results/<study>``: edges, behaviour, network, but no weights.

    Parameters
    ----------
    size, study
        As in `flops`.

    Returns
    -------
    int
        Bytes.
    """
    nodes, effects = nodes_of_study(size, study), 1 + study["direct"]
    edges = 4 * (GROUPS + 1) * nodes**2 * _matrices(study) + nodes**2  # and the mask
    answers = 4 * (GROUPS + 1) * nodes * len(study["answer"]) * effects * (1 + study["control"])
    behaviour = 8 * (GROUPS + 1) * (2 * size.layers * size.heads + 3)
    # Two strengths in three forms and three centralities; of each effect betweenness in three forms and five more; the
    # strengths of both halves of four splits.
    scores = 8 * nodes * ((GROUPS + 1) * (9 + 8 * effects) + 8 * 6)
    possible = nodes**2 * (1 - 1 / size.layers) / 2
    backbones = round(3 * 525 * nodes + 0.22 * 157 * possible)  # bytes of a node and of an edge, of which 22 % are kept
    return edges + answers + behaviour + scores + backbones + 2**15  # metrics, and what names the arrays in the files


def weights_bytes(size: Size, bits: int = 16) -> int:
    """Count the bytes of a checkpoint's weights, of so many bits each."""
    return size.parameters * bits // 8


@dataclass(frozen=True)
class _Calls:
    """FLOPs of one call of a layer's parts on one prompt (see `phasegraph.model.components.Components`)."""

    attention: int
    qkv: int
    attend: int
    project: int
    mlp: int
    product: int
    """The heads' contributions from their outputs, without a call."""
    model: int
    """A whole layer of transformers' own model."""


def _calls(size: Size, length: int) -> _Calls:
    qkv, project, mlp = (2 * length * n for n in (size.qkv_weights, size.output_weights, size.mlp_weights))
    pair = 4 * size.heads * size.head_width  # a query's product with a key, and with its value
    model = qkv + project + mlp + pair * length**2
    if size.family == "gpt_neox":  # phasegraph.model.neox: some queries at a time, without the keys after them
        ends = [(start, min(start + QUERIES, length)) for start in range(0, length, QUERIES)]
        attend = pair * sum((end - start) * end for start, end in ends)
        return _Calls(qkv + attend, qkv, attend, project, mlp, project, model)
    attention = qkv + pair * length**2 + project  # a bridge runs all of it whichever part is wanted
    return _Calls(attention, attention, attention, project, mlp, project, model)


def _check(size: Size, call: _Calls) -> tuple[int, int]:
    """Count the FLOPs of `phasegraph.model.load.components_of`, and the prompts whose logits it computes."""
    streams = call.attention + call.project + call.mlp
    attention = call.attention + 2 * call.project + call.product + call.qkv + call.attend
    first = 0 if size.family == "gpt_neox" else 1  # a bridge's arguments are recorded on a prompt
    return size.layers * (first * call.model + 2 * (call.model + streams + attention)), first + 2 + 2


def _before(size: Size, study: Mapping) -> list[int]:
    """Count the ablations before each layer, and after the last."""
    return [study["nodes"]["embed"] + layer * (size.heads + 1) for layer in range(size.layers + 1)]


def _to_the_end(study: Mapping) -> bool:
    return bool(study["answer"]) or study["nodes"]["logits"]


def _total(size: Size, study: Mapping, call: _Calls) -> int:
    """Count the FLOPs of `phasegraph.edges.walks.walk_total` on one prompt."""
    *before, _ = _before(size, study)
    if not size.parallel:
        return sum(before) * (call.attention + call.project + call.mlp) + size.layers * size.heads * call.mlp
    written = sum(before if _to_the_end(study) else before[:-1])
    return sum(before) * (call.attention + call.mlp) + written * call.project


def _direct(size: Size, study: Mapping, call: _Calls, qkv: bool) -> int:
    """Count the FLOPs of `phasegraph.edges.walks.walk_direct` on one prompt."""
    *before, _ = _before(size, study)
    if size.parallel and not qkv:  # the direct effects on the next layer are the total ones
        before = before[:-1]
    mlps = sum(before) + (0 if size.parallel else size.layers * size.heads)
    if not qkv:
        return sum(before) * call.attention + mlps * call.mlp
    return sum(before) * (call.qkv + 4 * call.attend) + size.layers * call.qkv + mlps * call.mlp


def _read(size: Size, study: Mapping) -> int:
    """Count how often logits are compared, by prompt and ablation."""
    walks = (1 + study["direct"]) * (1 + study["control"])
    return study["task"]["prompts"] * (_before(size, study)[-1] * walks + 1)


def _logits(size: Size, study: Mapping) -> int:
    """Count the logits of the behaviour, and of the answer where it needs those of the whole vocabulary."""
    task = study["task"]
    answers = _read(size, study) * task["answers"] if "kl" in study["answer"] else 0
    return size.vocabulary * (task["prompts"] * length_of(task) + answers)


def _readout(size: Size, study: Mapping, length: int) -> int:
    """Count the FLOPs that compare logits, as a node or as the answer."""
    task, found = study["task"], 0
    if study["nodes"]["logits"]:
        root = min(size.width, size.vocabulary)  # phasegraph.edges.passes.Readout
        found += 2 * length * size.width * root * (_read(size, study) + task["reference"])
    if "kl" in study["answer"]:
        found += 2 * task["answers"] * size.width * size.vocabulary * _read(size, study)
    return found


def _matrices(study: Mapping) -> int:
    """Count the [17, N, N] of a checkpoint: by effect and span of positions, of the control, of single inputs."""
    spans = 3 if study["by_position"] else 1
    return spans * (1 + study["direct"]) * (1 + study["control"]) + 3 * study["qkv"]


def _behaviour_bytes(size: Size, study: Mapping) -> int:
    """Bytes that `phasegraph.tasks.behaviour` needs at once: logits a few times, and attention patterns twice."""
    task, length = study["task"], length_of(study["task"])
    prompts = min(task["prompts"], max(1, LOGITS_PER_PASS // (length * size.vocabulary)))
    logits = 4 * 4 * prompts * length * size.vocabulary
    return logits + 2 * 4 * prompts * size.layers * size.heads * length**2


def _engine_bytes(size: Size, study: Mapping) -> int:
    """Bytes that `phasegraph.edges.memory.cut` would have the engine use if it could."""
    length, item = length_of(study["task"]), ITEM[study["dtype"]]
    stream = length * size.width * item
    logits = 12 * study["task"]["answers"] * size.vocabulary * ("kl" in study["answer"])
    in_call = max(1, TOKENS_PER_CALL // length)
    prompts = min(study["task"]["prompts"], in_call)
    per_row = 32 * stream + 4 * size.heads * length**2 * item + logits
    kept = 10 * size.layers * stream + logits
    return in_call * per_row + prompts * (kept + 2 * _before(size, study)[-1] * stream)


LOGITS_PER_PASS = 2**24
"""As `phasegraph.tasks.behaviour.LOGITS_PER_PASS`."""
TOKENS_PER_CALL = 1536
"""As `phasegraph.edges.memory.TOKENS_PER_CALL` on a CPU."""
