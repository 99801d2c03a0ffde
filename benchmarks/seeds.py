"""Ten trainings and twenty series that learn nothing: where the change tests find boundaries.

    snakemake --cores all --configfile config/demo-seeds.yaml     # first: trains and measures the ten
    python benchmarks/seeds.py                                    # then this; about half an hour of one core
    python benchmarks/seeds.py --tables                           # the tables of docs/phases.md, from seeds.json

Trainings: does a boundary of test A lie inside the transition of behaviour, which is dated by the loss alone, or within
five checkpoints of it? The series that is tested was chosen on seeds 1 to 5; seeds 6 to 10 were looked at once. Beside
it the share of circular shifts of the same boundaries that lie there too: what chance would give.

Controls: the weights of a training's step 0, at every one of the 146 checkpoints with other noise, measured and tested
like a study. `scattered` noise is independent from checkpoint to checkpoint, `wandering` noise adds up. Its size is
such that the weights move from checkpoint to checkpoint as far as they do in that training (scattered: as its median).
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import polars as pl
import torch
from engine_methods.table import markdown

from phasegraph.edges.engine import measure_edges
from phasegraph.model.load import components_of, read
from phasegraph.network.blocks import block_changes, blocks_of, log_weights
from phasegraph.network.graph import are_components, between_components, read_mask, read_nodes
from phasegraph.phases.behaviour import Transition, near_transition, transition
from phasegraph.phases.others import others
from phasegraph.phases.rates import Rates, block_rates
from phasegraph.phases.settings import NULLS_OF, Settings
from phasegraph.phases.tables import LOSS, Files, read_tables
from phasegraph.phases.test import PhaseTest, both_tests
from phasegraph.tasks.induction import induction
from phasegraph.types import Measurement

FOUND = Path(__file__).with_suffix(".json")
TUNED = range(1, 6)
SEEDS = range(1, 11)
CONTROLS = 20
KINDS = ("scattered", "wandering")


def main() -> None:
    """Read the command line; measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the workflow's results")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=KINDS[:1],
        help="of noise in the controls; scattered alone if left out",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--tables", action="store_true", help="print the tables of the last run")
    arguments = parser.parse_args()
    if not arguments.tables:
        tasks = [(arguments.results, kind, number) for kind in arguments.kinds for number in range(1, CONTROLS + 1)]
        with ProcessPoolExecutor(arguments.jobs) as pool:
            found = {"trainings": list(pool.map(training, repeat(arguments.results), SEEDS)), "controls": []}
            for row in pool.map(control, *zip(*tasks, strict=True)):
                print(row, flush=True)
                found["controls"].append(row)
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
    print("\n\n".join(tables(json.loads(FOUND.read_text()))))


def training(results: Path, seed: int) -> dict:
    """Read what was found in one training."""
    study = results / f"seed-{seed}"
    names = ("metrics.parquet", "replicates.npz", "blocks.npz", "behaviour.parquet")
    manifest = results / "series" / f"seed-{seed}" / "series.tsv"
    tables = read_tables(Files(*(study / name for name in names), manifest))
    steps, change = tables.steps.tolist(), transition(tables.behaviour[LOSS])
    row = {"seed": seed, "n": len(steps), "transition": {"start": steps[change.start], "end": steps[change.end]}}
    series = block_rates(tables.steps, tables.arc_length, tables.blocks)
    for test, p in tested(series, tables.arc_length).items():
        boundaries = [at + 1 for at in p.boundaries]
        row[test] = [steps[index] for index in boundaries]
        row[f"{test}_near"] = [
            steps[i] for i, near in zip(boundaries, near_transition(boundaries, change), strict=True) if near
        ]
        row[f"{test}_chance"] = chance(boundaries, change, len(steps))
    beside = others(series.values, series.steps, Settings().min_size)
    row |= {name: [int(step) for step in beside[name]["steps"]] for name in ("pelt", "pelt_long_run", "kernel")}
    row["hmm"] = [int(step) for step in beside["hmm"]["steps"][1:]]
    print(row, flush=True)
    return row


def tested(series: Rates, arc_length: np.ndarray) -> dict[str, PhaseTest]:
    """Run both tests with the default settings."""
    return both_tests(series.values, arc_length[1:], Settings(), locate=False)


def chance(boundaries: list[int], change: Transition, n: int) -> float:
    """Share of all circular shifts of the boundaries, among points 1 to n - 1, with one at the transition."""
    shifted = [[1 + (at - 1 + shift) % (n - 1) for at in boundaries] for shift in range(n - 1)]
    return float(np.mean([any(near_transition(places, change)) for places in shifted]))


def control(results: Path, kind: str, number: int) -> dict:
    """Measure and test one series that learns nothing."""
    torch.set_num_threads(1)
    seed = SEEDS[(number - 1) % len(SEEDS)]
    study = results / f"seed-{seed}"
    manifest = pl.read_csv(results / "series" / f"seed-{seed}" / "series.tsv", separator="\t", infer_schema_length=None)
    steps, arc_length = (manifest.filter(pl.col("used") == "yes")[name].to_numpy() for name in ("step", "arc_length"))
    nodes = read_nodes(study / "nodes.tsv")
    inner = between_components(read_mask(study / "mask.npy", len(nodes)), are_components(nodes))
    names, block = blocks_of(nodes, inner)
    folder = results / "series" / f"seed-{seed}" / "checkpoints" / str(steps[0])
    displacements = np.diff(arc_length)
    rng = np.random.default_rng([number, KINDS.index(kind)])
    model = read(folder)
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    place, arc, logs, changes = start, [0.0], None, [np.full(len(names), np.nan)]
    for i in range(len(steps)):
        noise = torch.from_numpy(rng.standard_normal(len(start), dtype=np.float32)) / np.sqrt(len(start))
        before = place
        if kind == "scattered":
            place = start + noise * np.median(displacements) / np.sqrt(2)
        elif i:
            place = place + noise * displacements[i - 1]
        after = log_weights(edges(model, place)[inner])
        if i:
            arc.append(arc[-1] + float(torch.linalg.vector_norm(place - before)))
            changes.append(block_changes(logs, after, block))
        logs = after
    blocks = dict(zip(names, np.array(changes).T[:, None], strict=True))
    series = block_rates(steps, np.array(arc), blocks)
    row = {"kind": kind, "number": number, "seed": seed, "columns": len(series.columns)}
    for test, found in tested(series, np.array(arc)).items():
        row |= {test: [int(series.steps[at]) for at in found.boundaries], f"{test}_p": found.p_values[0]}
    return row


def edges(model: torch.nn.Module, weights: torch.Tensor) -> np.ndarray:
    """Total effects [N, N] of the demonstration's study, on a model with these weights."""
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(weights.clone(), model.parameters())
    task = induction(prompts=32, reference=32, segment=8, token_range=(1, model.config.vocab_size))
    components = components_of(model, task.tokens.shape[1])
    return measure_edges(components, task, Measurement(direct=False))["total"][0]


def tables(found: dict) -> list[str]:
    """Markdown: the trainings, and how often something was found in the controls."""
    rows = [
        [
            f"{row['seed']}{'' if row['seed'] in TUNED else ' (held out)'}",
            f"{row['transition']['start']}-{row['transition']['end']}",
            listed(row["test_a"], row["test_a_near"]),
            f"{row['test_a_chance']:.2f}",
            listed(row["test_b"], row["test_b_near"]),
            str(len(row["pelt"])),
            str(len(row["kernel"])),
            str(len(row["hmm"])),
        ]
        for row in found["trainings"]
    ]
    header = ["seed", "transition", "test A", "by chance", "test B", "PELT", "KernelCPD", "HMM"]
    counts = []
    for kind in dict.fromkeys(row["kind"] for row in found["controls"]):
        of = [row for row in found["controls"] if row["kind"] == kind]
        counts.append([kind, str(len(of)), *(str(sum(not row[test] for row in of)) for test in NULLS_OF)])
    return [
        markdown(header, rows, left=2),
        markdown(["noise", "series", "no boundary, test A", "no boundary, test B"], counts, left=1),
    ]


def listed(steps: list[int], near: list[int]) -> str:
    """Write steps, those at the transition in bold."""
    return ", ".join(f"**{step}**" if step in near else str(step) for step in steps) or "none"


if __name__ == "__main__":
    main()
