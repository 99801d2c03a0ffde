"""Whole runs of the workflow, in a copy of the repository: what is made, and what is made again after a change."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from runs import FAN_IN, FIGURES, ROOT, copy_of_repository, finished_run, snakemake, times, to_do
from safetensors.numpy import load_file, save_file
from snakemake.utils import validate

STEPS = (0, 4, 8, 12, 16, 20)
MEASURED = Counter(measure_edges=len(STEPS), measure_edges_direct=len(STEPS), measure_network=2 * len(STEPS))
AUDITED = Counter(audit_series=1, list_nodes=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests that change it work on copies."""
    return finished_run(tmp_path_factory.mktemp("run") / "phasegraph")


def test_everything_is_made(finished):
    for study, direct in (("mean", True), ("paper", False)):
        folder = finished / "results" / study
        for step in STEPS:
            edges = np.load(folder / "edges" / f"{step}.npy")
            size = 8 if direct else 6  # mean has the embedding and the logits besides
            assert (edges.shape, edges.dtype) == ((17, size, size), np.float32)
            assert (folder / "edges" / f"{step}.direct.npy").exists() == direct
            with np.load(folder / "edges" / f"{step}.more.npz") as more:
                assert {"total.first", "total.second"} <= set(more)
                asked_for = {"direct.q", "direct.k", "direct.v", "control.total", "control.direct", "direct.second"}
                assert (set(more) & asked_for == asked_for) == direct
                assert all(np.isfinite(values).all() for name, values in more.items() if name != "kind")
        assert sorted(pl.read_parquet(folder / "metrics.parquet")["step"].unique()) == list(STEPS)
        behaviour = pl.read_parquet(folder / "behaviour.parquet")
        assert sorted(behaviour["step"].unique()) == list(STEPS)
        answers = behaviour.filter(pl.col("quantity").str.starts_with("answer"))
        kinds = ("logit_difference", "kl") if direct else ("logit_difference",)
        effects = ("total", "direct") if direct else ("total",)
        assert set(answers["quantity"]) == {f"answer_{kind}_{effect}" for kind in kinds for effect in effects}
        assert ("embed" in set(answers["node"])) == direct
        assert len(list((folder / "figures").glob("*.svg"))) == len(list((folder / "figures").glob("*.png"))) == FIGURES
        assert json.loads((folder / "phases.json").read_text())["sentences"]
        assert "</html>" in (folder / "report.html").read_text()
        assert list(yaml.safe_load((folder / "run_config.yaml").read_text())["studies"]) == [study]
    mask = np.load(finished / "results" / "mean" / "mask.npy")
    assert mask.shape == (8, 8)
    edges = np.load(finished / "results" / "mean" / "edges" / "20.npy")
    assert (edges[:, ~mask] == 0).all()
    assert (edges[:, mask] > 0).all()
    leftovers = [path.name for path in (finished / "results").rglob("*") if ".tmp" in path.name]
    assert leftovers == []


def test_nothing_is_left_to_do(finished):
    dry = snakemake(finished, "--dry-run")
    assert "Nothing to be done" in dry.stdout + dry.stderr


def test_snakemake_reports_on_a_finished_run(finished, tmp_path):
    run = snakemake(finished, "--report", str(tmp_path / "report.zip"))
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "report.zip").stat().st_size > 100_000


def test_a_copy_with_new_times_has_nothing_to_do(copy):
    for path in [*copy.rglob("*.py"), *copy.rglob("*.safetensors"), *copy.rglob("*.npy")]:
        path.touch()
    assert to_do(copy) == Counter()


def test_one_changed_checkpoint_reruns_its_chain_and_the_fan_in(copy):
    path = copy / "results/series/tiny/checkpoints/12/model.safetensors"
    weights = load_file(path)
    weights["gpt_neox.layers.0.attention.dense.weight"] *= 1.5
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})
    chain = Counter(measure_edges=1, measure_edges_direct=1, measure_network=2, audit_series=1, list_nodes=2)
    assert to_do(copy) == chain + times(FAN_IN, 2)
    before = {file: file.read_bytes() for file in (copy / "results").rglob("edges/*.npy")}
    assert snakemake(copy, "--cores", "2").returncode == 0
    changed = {
        str(file.relative_to(copy / "results")) for file, bytes_ in before.items() if file.read_bytes() != bytes_
    }
    assert changed == {"mean/edges/12.npy", "mean/edges/12.direct.npy", "paper/edges/12.npy"}
    assert to_do(copy) == Counter()


def test_how_models_are_run_reruns_nothing(copy):
    config = copy / "tests/workflow/config.yaml"
    config.write_text(config.read_text() + "\nmodel: { memory_budget: 256, device: cpu }\n")
    assert to_do(copy) == Counter()


def test_too_small_a_memory_budget_is_one_line(copy):
    config = copy / "tests/workflow/config.yaml"
    config.write_text(config.read_text() + "\nmodel: { memory_budget: 1 }\n")
    run = snakemake(copy, "--dry-run")
    assert run.returncode != 0
    assert "memory_budget" in run.stdout + run.stderr


def test_one_more_option_reruns_the_study_alone(copy):
    config = copy / "tests/workflow/config.yaml"
    config.write_text(config.read_text().replace("intervention: zero", "intervention: resample"))
    expected = Counter(measure_edges=len(STEPS), measure_network=len(STEPS), write_config=1)
    assert to_do(copy) == expected + FAN_IN


def test_one_more_step_is_trained_and_measured_alone(copy):
    config = copy / "tests/workflow/config.yaml"
    config.write_text(config.read_text().replace("steps: [0, 4,", "steps: [0, 2, 4,"))
    chain = Counter(train_checkpoint=1, measure_edges=1, measure_edges_direct=1, measure_network=2)
    fan_in = Counter(audit_series=1, list_nodes=2, write_config=2) + times(FAN_IN, 2)
    assert to_do(copy) == chain + fan_in
    before = {file: file.stat().st_mtime_ns for file in (copy / "results").rglob("edges/*.npy")}
    assert snakemake(copy, "--cores", "2").returncode == 0
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert sorted(pl.read_parquet(copy / "results/mean/metrics.parquet")["step"].unique()) == [0, 2, *STEPS[1:]]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("network/roles.py", times(FAN_IN, 2) - Counter(record_shard=2, gather_behaviour=2)),
        ("phases/labels.py", times(Counter(find_phases=1, draw_figure=FIGURES, write_report=1), 2)),
        ("report/figures/tails.py", times(Counter(draw_figure=1, write_report=1), 2)),
        ("series/line.py", AUDITED + times(FAN_IN, 2) - Counter(record_shard=2)),
        ("edges/engine.py", MEASURED + times(FAN_IN, 2)),
        ("series/optimiser.py", Counter(train_checkpoint=len(STEPS)) + MEASURED + AUDITED + times(FAN_IN, 2)),
    ],
)
def test_an_edited_module_reruns_what_imports_it(copy, module, expected):
    path = copy / "workflow/phasegraph" / module
    path.write_text(path.read_text() + "\n# edited\n")
    assert to_do(copy) == expected


def test_a_phase_setting_reruns_the_tests_alone(copy):
    config = copy / "tests/workflow/config.yaml"
    config.write_text(config.read_text().replace("bootstraps: 99", "bootstraps: 199", 1))
    assert to_do(copy) == Counter(write_config=1, find_phases=1, draw_figure=FIGURES, write_report=1)


def test_the_forwarder_has_the_same_jobs(tmp_path):
    folder = copy_of_repository(tmp_path / "new")
    jobs = to_do(folder)
    assert jobs["measure_edges"] == len(STEPS)
    assert to_do(folder, "--snakefile", "workflow/Snakefile") == jobs


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("intervention: zero", "intervension: zero", "intervension"),
        ("intervention: zero", "intervention: nought", "nought"),
        ("prompts: 16", "prompts: 20", "20"),
        ("series: tiny", "series: tyni", "tyni"),
        ("layers: 2", "layer: 2", "layer"),
        ("steps: [0, 4,", "steps: [-1, 4,", "-1"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(tmp_path, old, new, named):
    folder = copy_of_repository(tmp_path / "new")
    config = folder / "tests/workflow/config.yaml"
    config.write_text(config.read_text().replace(old, new, 1))
    run = snakemake(folder, "--cores", "1")
    assert run.returncode != 0
    assert named in run.stdout + run.stderr
    assert not (folder / "results").exists()


def test_an_empty_configuration_is_the_demonstration():
    schema = str(ROOT / "workflow/schemas/config.schema.yaml")
    empty: dict = {}
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    validate(empty, schema)
    validate(shipped, schema)
    assert empty == shipped


def test_shipped_configurations_are_valid():
    for path in sorted((ROOT / "config").glob("*.yaml")):
        validate(yaml.safe_load(path.read_text()), str(ROOT / "workflow/schemas/config.schema.yaml"))


def test_every_key_of_the_schema_is_described():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())

    def properties(part):
        for name, value in part.get("properties", {}).items():
            yield name, value
            yield from properties(value)

    parts = [schema, *schema["$defs"].values()]
    found = [(name, value) for part in parts for name, value in properties(part) if "$ref" not in value]
    assert len(found) > 20
    assert [name for name, value in found if "description" not in value] == []


def test_pins_of_the_environment_are_those_of_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line)
    environment = yaml.safe_load((ROOT / "envs/phasegraph.yaml").read_text())
    pins = dict(line.split("==") for line in environment["dependencies"][-1]["pip"])
    lower = {name.lower(): version for name, version in constraints.items()}
    assert {name: lower.get(name.lower()) for name in pins} == pins
    text = (ROOT / "pyproject.toml").read_text()
    direct = re.findall(
        r'^  "([a-z0-9-]+)[>=<]', re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.M)[1], re.M
    )
    assert sorted(direct) == sorted(name.lower() for name in pins)
