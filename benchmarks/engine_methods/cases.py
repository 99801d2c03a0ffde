"""Which methods run at which shape, on how much of the whole."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from engine_methods import floor, helpers, ours, paper
from engine_methods.clock import Method, round_robin, tidy
from engine_methods.hooks import hook_edges
from engine_methods.models import PYTHIA, Shape, engine_flops, prompts_for
from phasegraph.model.components import Components, bridge_components
from phasegraph.model.load import components_of, load, read
from phasegraph.types import GROUPS, Intervention, Measure

TOTAL, BOTH = "phasegraph total", "phasegraph both"
DIRECT, BRIDGE = "phasegraph direct", "phasegraph both, bridge"
SQUARE, SHAPES = "floor, square", "floor, own shapes"
PAPER, SAME_NODES, HOOKS = "paper", "paper, our nodes", "hooks"
ORDER = (
    PAPER,
    SAME_NODES,
    HOOKS,
    "transformer_lens patching",
    "transformer_lens direct path",
    TOTAL,
    DIRECT,
    BOTH,
    BRIDGE,
    "load",
    SQUARE,
    SHAPES,
)


@dataclass(frozen=True)
class Case:
    """Prompts of one length for one model."""

    model: str
    length: int
    prompts: tuple[int, ...]
    """What rows stand for; hooks run on the first of them, and the others are multiples of it."""
    repeats: int
    ablations: int = 2
    """How many of the paper's ablations are timed."""
    nodes: int | None = None
    """How many nodes are ablated by hooks; all if None."""
    engine_prompts: int | None = None
    """How many prompts the engine takes at a time and is stopped after; all, in chunks of its choice, if None."""


QUICK = (Case("pythia-14m", 64, (8,), repeats=2),)
CASES = (
    Case("pythia-14m", 64, (8,), repeats=5, ablations=3),
    Case("pythia-14m", 128, (8,), repeats=4, ablations=3),
    Case("pythia-14m", 128, (32,), repeats=3),
    Case("pythia-160m", 64, (8,), repeats=2, nodes=4, engine_prompts=1),
    Case("pythia-160m", 128, (8, 32), repeats=2, nodes=4, engine_prompts=1),
)


def rows_of(case: Case, folder: Path, say: Callable[[str], None]) -> list[dict]:
    """Time all methods at one case; give the rows of the table."""
    shape = PYTHIA[case.model]
    engine, chunk = _engine_methods(case, shape, folder)
    products = floor.record(engine[0].run)
    alone = Method(SHAPES, "the engine's matrix products alone", floor.replay(products), engine[0].scale, chunk)
    square = floor.Square()
    speed = Method(SQUARE, "the engine's FLOPs at the speed of a large square product", square.run)
    methods = [*_hook_methods(case, shape, folder), *engine, alone, speed]
    round_robin(methods, case.repeats, say)
    alone.peaks.clear()  # its outputs exist before
    total = next(method for method in methods if method.name == TOTAL)
    _check_flops(case, shape, total, floor.flops_of(products))
    rows = [_row(case, method, prompts) for prompts in case.prompts for method in methods if method is not speed]
    for prompts in case.prompts:
        rows += _derived_rows(case, shape, methods, prompts, square.speed())
    for row in rows:
        if row["method"] == TOTAL:
            row["gflop_formula"] = engine_flops(shape, row["prompts"], case.length, row["prompts"]) / 1e9
    tidy()
    return sorted(rows, key=lambda row: (row["prompts"], ORDER.index(row["method"])))


def _hook_methods(case: Case, shape: Shape, folder: Path) -> list[Method]:
    """Make what runs on whole batches of prompts with hooks on the bridge."""
    bridge = load(folder)
    prompts = case.prompts[0]
    task = prompts_for(shape, max(prompts, GROUPS), case.length, prompts)
    tokens, reference = torch.from_numpy(task.tokens)[:prompts], torch.from_numpy(task.reference)
    number = paper.number_of_ablations(shape)
    ablations = paper.some_ablations(shape, case.ablations)
    nodes = case.nodes or shape.nodes
    sources = [round(i * (shape.nodes - 1) / (nodes - 1)) for i in range(nodes)]
    small = case.nodes is None and prompts < GROUPS
    heads = [(round(i * (shape.layers - 1) / 3), i % shape.heads) for i in range(4 if small else 2)]
    means, clean = helpers.caches(bridge, tokens, reference)
    paths = shape.heads**2 * shape.layers * (shape.layers - 1) // 2
    methods = [
        Method(
            PAPER,
            f"{number} ablations of hook points and heads -> cosines",
            lambda: paper.paper_rows(bridge, tokens, ablations, paper.points(shape.layers)),
            number / len(ablations),
            f"{len(ablations)} of {number} ablations",
        ),
        Method(
            HOOKS,
            f"total effects of {shape.nodes} nodes",
            lambda: hook_edges(
                bridge, tokens, reference, intervention=Intervention.MEAN, measure=Measure.VARIANCE, sources=sources
            ),
            (shape.nodes + 2) / (nodes + 2),  # the clean pass and the means cost one pass each, as an ablation does
            None if nodes == shape.nodes else f"{nodes} of {shape.nodes} nodes",
        ),
        Method(
            "transformer_lens patching",
            f"mean ablation of {shape.nodes} nodes -> one number each",
            lambda: helpers.patch_heads(bridge, tokens, means, heads),
            shape.nodes / len(heads),
            f"{len(heads)} of {shape.nodes} nodes",
        ),
    ]
    if small:
        methods.append(
            Method(
                "transformer_lens direct path",
                f"{paths} paths head -> query of head -> one number each",
                lambda: helpers.patch_paths(bridge, tokens, means, clean, shape.layers - 2),
                paths / shape.heads,
                f"{shape.heads} of {paths} paths",
            )
        )
    return methods


def _engine_methods(case: Case, shape: Shape, folder: Path) -> tuple[list[Method], str | None]:
    """Make phasegraph's methods, total effects first, and say what they are scaled from."""
    fast = components_of(read(folder), case.length)
    bridge = bridge_components(load(folder), case.length)
    prompts = case.engine_prompts or max(case.prompts[0], GROUPS)
    task = prompts_for(shape, max(prompts, GROUPS), case.length, prompts)
    if case.engine_prompts is None:

        def run(components: Components, direct: bool) -> Callable[[], object]:
            return lambda: ours.measured(components, task, direct=direct)
    else:
        budget, prompts = ours.small_budget(fast, task, prompts)
        task = prompts_for(shape, GROUPS, case.length, prompts)

        def run(components: Components, direct: bool) -> Callable[[], object]:
            return lambda: ours.first_prompts(components, task, prompts, direct=direct, memory_budget=budget)

    scaled_from = None if prompts == case.prompts[0] else f"{prompts} prompt{'s' * (prompts > 1)}"
    scale = case.prompts[0] / prompts
    methods = [
        Method(TOTAL, "total effects", run(fast, False), scale, scaled_from),
        Method(BOTH, "total and direct effects", run(fast, True), scale, scaled_from),
        Method(BRIDGE, "the same by the bridge's own modules", run(bridge, True), scale, scaled_from),
        Method("load", "a saved folder -> components", lambda: components_of(read(folder), case.length)),
    ]
    return methods, scaled_from


def _check_flops(case: Case, shape: Shape, total: Method, recorded: int) -> None:
    """Stop if the FLOPs that were counted, recorded and predicted are not the same."""
    prompts = case.prompts[0] / total.scale
    predicted = engine_flops(shape, prompts, case.length, prompts)
    if abs(recorded / total.flops - 1) > 0.001:
        raise SystemExit(f"{case.model}: recorded products make {recorded / total.flops:.4f} of the counted FLOPs")
    if abs(total.flops / predicted - 1) > 0.1:
        raise SystemExit(f"{case.model}: {total.flops / predicted:.3f} of the FLOPs that the formula gives")


def _row(case: Case, method: Method, prompts: int) -> dict:
    """Make a row of the table from what was timed."""
    times = 1 if method.name == "load" else prompts / case.prompts[0]
    scaled_from = method.scaled_from
    if times > 1 and "prompt" not in (scaled_from or ""):
        scaled_from = f"{scaled_from}, {case.prompts[0]} prompts" if scaled_from else f"{case.prompts[0]} prompts"
    return {
        **_head(case, prompts, method.name, method.computes),
        "cpu_seconds": method.median * times,
        "cpu_seconds_range": [f(method.seconds) * method.scale * times for f in (min, max)],
        "peak_mib": median(method.peaks) if method.peaks and times == 1 else None,
        "gflop": method.flops * method.scale * times / 1e9,
        "repeats": len(method.seconds),
        "scaled_from": scaled_from,
    }


def _derived_rows(case: Case, shape: Shape, methods: list[Method], prompts: int, speed: float) -> list[dict]:
    """Add what follows from other rows.

    That is the paper's loop with one ablation per node, the price of direct effects (the engine measures them beside
    the total ones, so it is a difference), and the engine's FLOPs at the speed of a square product.
    """
    by_name = {method.name: method for method in methods}
    total, both = by_name[TOTAL], by_name[BOTH]
    differences = [b - t for b, t in zip(both.seconds, total.seconds, strict=True)]
    loop = by_name[PAPER]
    same = replace(
        loop, name=SAME_NODES, computes=f"the same loop, {shape.nodes} ablations", scale=shape.nodes / case.ablations
    )
    direct = Method(DIRECT, "what direct effects add to total ones", both.run, both.scale, both.scaled_from)
    direct.seconds, direct.flops = differences, both.flops - total.flops
    square = _row(case, total, prompts)
    seconds = square["gflop"] * 1e9 / speed
    return [
        _row(case, same, prompts),
        _row(case, direct, prompts),
        square
        | _head(case, prompts, SQUARE, by_name[SQUARE].computes)
        | {"cpu_seconds": seconds, "cpu_seconds_range": None, "peak_mib": None, "gflop_per_second": speed / 1e9},
    ]


def _head(case: Case, prompts: int, method: str, computes: str) -> dict:
    shape = {"shape": case.model, "prompts": prompts, "tokens": case.length}
    return {**shape, "method": method, "computes": computes}
