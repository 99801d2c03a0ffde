"""Whole runs on checkpoints that somebody else made: in a folder in place, and in a repository of a hub."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from hub_server import Content, Hub
from runs import FAN_IN, copy_of_repository, snakemake, to_do
from safetensors.numpy import load_file, save_file

from phasegraph.series import grids
from phasegraph.series.manifest import read_manifest
from phasegraph.series.pins import read_pins, write_pins
from phasegraph.series.recipe import Recipe
from phasegraph.series.training import train

pytestmark = pytest.mark.usefixtures("own_hub_settings")

RECIPE = dict(layers=2, heads=2, d_model=16, d_mlp=32, vocab=16, steps=40, warmup=4, batch=4, length=12, period_max=5)
STEPS = list(range(0, 41, 4))
STUDY = {"task": {"prompts": 16, "reference": 4, "segment": 5}, "phases": {"bootstraps": 99, "min_size": 2}}
REPO = "lab/model"
CHAIN = Counter(measure_edges_direct=1, measure_network=1)
FANNED = Counter(audit_series=1, list_nodes=1) + FAN_IN


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The checkpoints of a small training: <step>/{config.json, model.safetensors}."""
    return train(Recipe.from_dict(RECIPE), STEPS, tmp_path_factory.mktemp("trained"))


def configure(folder: Path, **series) -> None:
    """Write a configuration with one series and one study."""
    config = {"series": {"mine": series}, "studies": {"study": {"series": "mine", **STUDY}}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))


def run(folder: Path, *options: str, **variables: str):
    return snakemake(folder, "--cores", "2", *options, config="mine.yaml", **variables)


def jobs(folder: Path, **variables: str) -> Counter:
    return to_do(folder, config="mine.yaml", **variables)


def used(folder: Path) -> dict[int, str]:
    """What is wrong with every step, nothing for those that are used."""
    table = read_manifest(folder / "results/series/mine/series.tsv")
    assert table["used"].tolist() == (table["flags"] == "").tolist()
    return dict(zip(table["step"].tolist(), table["flags"].tolist(), strict=True))


def one_line(finished) -> str:
    """The message of a run that failed by a user's mistake."""
    assert finished.returncode != 0
    text = finished.stdout + finished.stderr
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if "The configuration cannot be used" in line or "error:" in line]
    assert len(set(lines)) == 1, text
    return lines[0]


# --- a directory -----------------------------------------------------------------------------------------------------


def put(source: Path, target: Path, *, step: int | None = None) -> Path:
    """Copy a checkpoint as the Trainer of transformers would have written it."""
    shutil.copytree(source, target)
    (target / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return target


def rewrite(path: Path, name: str, change) -> None:
    """Change one tensor of a file of weights."""
    weights = load_file(path)
    weights[name] = change(weights[name])
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def in_place(trained, tmp_path_factory) -> Path:
    """A finished run on a folder with one of each fault."""
    folder = copy_of_repository(tmp_path_factory.mktemp("place") / "phasegraph")
    runs = folder / "runs" / "mine"
    for step in STEPS:
        put(trained / str(step), runs / f"checkpoint-{step}", step=step)
    # one with a pickle, as older versions of the Trainer wrote them
    pickled = runs / "checkpoint-4"
    torch.save(
        {name: torch.from_numpy(value) for name, value in load_file(pickled / "model.safetensors").items()},
        pickled / "pytorch_model.bin",
    )
    (pickled / "model.safetensors").unlink()
    put(trained / "8", runs / "checkpoint-9", step=9)  # a duplicate
    put(trained / "40", runs / "checkpoint-18", step=18)  # final weights in mid-run
    cut = put(trained / "24", runs / "checkpoint-26", step=26) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    poisoned = put(trained / "28", runs / "checkpoint-30", step=30) / "model.safetensors"
    rewrite(poisoned, "gpt_neox.layers.1.mlp.dense_4h_to_h.weight", lambda x: np.where(x == x.max(), np.nan, x))
    wide = train(Recipe.from_dict(RECIPE | {"d_model": 32}), [34], folder / "wide")
    put(wide / "34", runs / "checkpoint-34", step=34)
    (runs / "checkpoint-38").mkdir()  # begun, and nothing written yet
    (runs / "logs").mkdir()
    configure(folder, source="directory", path="runs/mine", tokens_per_step=48)
    finished = run(folder)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return folder


@pytest.fixture
def place(in_place, tmp_path) -> Path:
    return Path(shutil.copytree(in_place, tmp_path / "copy", copy_function=shutil.copyfile))


FAULTY = {
    9: "duplicate of step 8",
    18: "duplicate of step 40",
    26: "unreadable",
    30: "not finite",
    34: "other architecture",
    38: "missing",
}


def test_every_fault_is_named_and_left_out(in_place):
    found = used(in_place)
    assert list(found) == sorted([*STEPS, *FAULTY])
    assert {step: text for step, text in found.items() if text}.keys() == FAULTY.keys()
    assert all(found[step].startswith(kind) for step, kind in FAULTY.items())
    metrics = pl.read_parquet(in_place / "results/study/metrics.parquet")
    assert metrics["step"].unique().sort().to_list() == STEPS
    behaviour = pl.read_parquet(in_place / "results/study/behaviour.parquet")
    assert behaviour["step"].unique().sort().to_list() == STEPS
    edges = in_place / "results/study/edges"
    assert {int(file.stem) for file in edges.glob("*[0-9].npy") if not file.stat().st_size} == {26, 30, 38}
    page = (in_place / "results/study/report.html").read_text()
    assert all(kind in page for kind in FAULTY.values())
    assert f"{len(STEPS)} of {len(found)}" in page
    audit = json.loads((in_place / "results/series/mine/audit.json").read_text())
    assert audit["summary"]["flagged"] == len(FAULTY)
    log = (in_place / "logs/audit_series/mine.log").read_text()
    assert all(f"checkpoint {step}: {kind}" in log for step, kind in FAULTY.items())


def test_a_pickle_is_measured_as_the_same_weights_in_safetensors(in_place, trained, tmp_path):
    folder = copy_of_repository(tmp_path / "other")
    for step in STEPS[:6]:
        put(trained / str(step), folder / f"runs/mine/checkpoint-{step}", step=step)
    configure(folder, source="directory", path="runs/mine")
    assert run(folder, "results/study/edges/4.npy").returncode == 0
    one, other = (np.load(root / "results/study/edges/4.npy") for root in (in_place, folder))
    np.testing.assert_array_equal(one, other)


def test_nothing_is_written_beside_the_checkpoints(in_place, trained):
    for step in set(STEPS) - {4}:
        names = {file.name for file in (in_place / f"runs/mine/checkpoint-{step}").iterdir()}
        assert names == {"config.json", "model.safetensors", "trainer_state.json"}


def test_a_copy_and_touched_files_run_nothing_again(place):
    assert jobs(place) == Counter()
    for file in place.glob("runs/mine/*/*"):
        file.touch()
    assert jobs(place) == Counter()


def test_new_content_under_the_old_time_runs_exactly_its_chain(place):
    file = place / "runs/mine/checkpoint-12/model.safetensors"
    time = file.stat().st_mtime_ns
    rewrite(file, "gpt_neox.layers.0.attention.dense.weight", lambda x: x * 1.01)
    os.utime(file, ns=(time, time))
    dry = snakemake(place, "--dry-run", config="mine.yaml")
    text = dry.stdout + dry.stderr
    assert "Params have changed since last execution" in text
    assert jobs(place) == CHAIN + FANNED
    before = {path: path.read_bytes() for path in place.glob("results/study/edges/*.npy")}
    assert run(place).returncode == 0
    assert {path.name for path in before if path.read_bytes() != before[path]} == {"12.npy", "12.direct.npy"}
    assert jobs(place) == Counter()


def test_a_further_checkpoint_is_measured_alone_and_a_mended_one_counts(place, trained):
    further = train(Recipe.from_dict(RECIPE), [38], place / "more")
    for name in ("config.json", "model.safetensors", "trainer_state.json"):
        source = further / "38" / name if name != "trainer_state.json" else place / "runs/mine/checkpoint-40" / name
        shutil.copy(source, place / "runs/mine/checkpoint-38" / name)
    (place / "runs/mine/checkpoint-38/trainer_state.json").write_text('{"global_step": 38}')
    assert jobs(place) == CHAIN + FANNED
    assert run(place).returncode == 0
    assert used(place)[38] == ""
    assert 38 in pl.read_parquet(place / "results/study/metrics.parquet")["step"]
    put(trained / "40", place / "runs/mine/checkpoint-44", step=44)
    assert jobs(place) == CHAIN + FANNED


def test_a_study_can_stop_or_take_what_is_flagged(place):
    configure(place, source="directory", path="runs/mine", tokens_per_step=48, flagged="stop")
    shutil.rmtree(place / "results/study/edges")
    stopped = one_line(run(place))
    assert not (place / "results/study/edges").exists()
    assert "6 of 17 checkpoints are flagged: 9 (duplicate), 18 (duplicate), 26 (unreadable)" in stopped
    assert not (place / "results/series/mine/series.tsv").exists()
    configure(place, source="directory", path="runs/mine", tokens_per_step=48, flagged=[9])
    assert run(place).returncode == 0
    table = read_manifest(place / "results/series/mine/series.tsv")
    assert set(table["step"][table["used"]].tolist()) == {*STEPS, 9}
    assert 9 in pl.read_parquet(place / "results/study/metrics.parquet")["step"]
    assert "By request, 1 is included all the same" in (place / "results/study/report.html").read_text()
    configure(place, source="directory", path="runs/mine", tokens_per_step=48, flagged=[26])
    assert "26" in one_line(run(place))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (dict(source="directory", path="runs/none"), "series.mine: path: there is no folder runs/none"),
        (dict(source="directory", path="runs"), "no folder in runs is named like checkpoint-{step}; there is mine"),
        (
            dict(source="directory", path="runs/mine", pattern="step{stp}"),
            "{stp} is not a field; the fields are",
        ),
        (dict(source="directory", path="runs/mine", steps=[5, 7]), "runs/mine has none of these 2 steps; it has 0, 4"),
        (dict(source="directory"), "series.mine.path is missing; source: directory needs it"),
        (dict(source="train", path="runs/mine"), "series.mine.path belongs to source: directory"),
        (dict(source="train", steps="all"), "steps: all is for checkpoints that are there already"),
        (dict(source="hub", path="runs/mine"), "series.mine.path belongs to source: directory, but this one has"),
    ],
)
def test_a_mistake_is_one_line(place, series, message):
    configure(place, **series)
    before = sorted(place.rglob("results/**/*"))
    assert message in one_line(run(place))
    assert sorted(place.rglob("results/**/*")) == before


# --- a hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(trained):
    """A repository with a revision per step, of which step24 is missing and step28 has no weights; main is empty."""
    hub = Hub()
    repo = hub.repo(REPO)
    repo.push("main", {".gitattributes": b"*.bin filter=lfs"})
    for step in STEPS:
        config, weights = ((trained / str(step) / name).read_bytes() for name in ("config.json", "model.safetensors"))
        files = {"config.json": config, "model.safetensors": Content(weights)} | {"tokenizer.json": b"{}"}
        if step == 28:
            del files["model.safetensors"]
        if step != 24:
            repo.push(f"step{step}", files)
    with hub.serve():
        yield hub


def test_a_repository_is_fetched_audited_and_measured_and_then_left_in_peace(hub, trained, tmp_path):
    folder = copy_of_repository(tmp_path / "phasegraph")
    steps = {"start": 0, "stop": 40, "every": 4}
    configure(folder, source="hub", repo=REPO, steps=steps, tokens_per_step=48)
    finished = run(folder, HF_ENDPOINT=hub.url)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    found = used(folder)
    assert {step: text.split(":")[0] for step, text in found.items() if text} == {24: "missing", 28: "missing"}
    table = read_manifest(folder / "results/series/mine/series.tsv")
    commits = {step: hub.repos[REPO].branches.get(f"step{step}", "") for step in STEPS}
    assert dict(zip(table["step"].tolist(), table["commit"].tolist(), strict=True)) == commits
    for step in set(STEPS) - {24, 28}:
        file = folder / f"results/series/mine/checkpoints/{step}/model.safetensors"
        assert file.read_bytes() == (trained / str(step) / "model.safetensors").read_bytes()
    assert (folder / "results/series/mine/tokenizer/tokenizer.json").read_bytes() == b"{}"
    metrics = pl.read_parquet(folder / "results/study/metrics.parquet")
    assert metrics["step"].unique().sort().to_list() == sorted(set(STEPS) - {24, 28})

    # Neither a look at what is there nor a branch that moves asks the hub for anything.
    asked = len(hub.requests)
    changed = (trained / "32" / "model.safetensors").read_bytes()
    hub.repos[REPO].push(
        "step12", {"config.json": (trained / "12" / "config.json").read_bytes(), "model.safetensors": Content(changed)}
    )
    assert jobs(folder, HF_ENDPOINT=hub.url) == Counter()
    assert jobs(folder, HF_HUB_OFFLINE="1") == Counter()
    copy = Path(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile))
    assert jobs(copy, HF_HUB_OFFLINE="1") == Counter()
    assert len(hub.requests) == asked

    # Asked again, the revision has another commit: its chain and the fan-in run, and the audit sees what it is.
    pins = folder / "results/series/mine/pins.tsv"
    write_pins([pin for pin in read_pins(pins) if pin.step != 12], pins)
    assert jobs(folder, HF_ENDPOINT=hub.url) == Counter(fetch_checkpoint=1) + CHAIN + FANNED
    assert run(folder, HF_ENDPOINT=hub.url).returncode == 0
    assert used(folder)[12].startswith("duplicate of step 32")

    # A further step is fetched and measured alone.
    configure(folder, source="hub", repo=REPO, steps=steps | {"also": [2]}, tokens_per_step=48)
    further = train(Recipe.from_dict(RECIPE), [2], tmp_path / "further") / "2"
    files = {name: Content((further / name).read_bytes()) for name in ("config.json", "model.safetensors")}
    hub.repos[REPO].push("step2", files)
    expected = Counter(fetch_checkpoint=1, write_config=1) + CHAIN + FANNED
    assert jobs(folder, HF_ENDPOINT=hub.url) == expected


def test_weights_that_are_not_kept_are_gone_and_nothing_runs_again(hub, tmp_path):
    folder = copy_of_repository(tmp_path / "phasegraph")
    configure(folder, source="hub", repo=REPO, steps=[0, 4, 8, 12, 16, 20], keep=False)
    finished = run(folder, HF_ENDPOINT=hub.url)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert not list(folder.glob("results/series/mine/**/*.safetensors"))
    assert not list(folder.glob("results/series/mine/**/*.part"))
    assert set(used(folder).values()) == {""}
    assert jobs(folder, HF_HUB_OFFLINE="1") == Counter()


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (dict(repo="lab/modle"), "no repository lab/modle, or it is private: check its name, or set HF_TOKEN"),
        (dict(repo="lab/private"), "no repository lab/private, or it is private: check its name, or set HF_TOKEN"),
        (dict(repo=REPO, revisions="checkpoint-{step}"), "no revision of lab/model matches the pattern"),
        (dict(repo=REPO, steps=[5, 7]), "lab/model has none of these 2 steps"),
        (dict(repo=REPO, revisions={0: "step0", 3: "step3"}, steps=[3]), "lab/model has none of these 1 steps"),
    ],
)
def test_a_mistake_about_a_repository_is_one_line(hub, tmp_path, series, message):
    hub.repo("lab/private", token="secret").push("step0", {"config.json": b"{}"})
    folder = copy_of_repository(tmp_path / "phasegraph")
    configure(folder, source="hub", **series)
    assert message in one_line(run(folder, HF_ENDPOINT=hub.url))
    assert not (folder / "results").exists()


@pytest.mark.parametrize(("name", "repositories"), [("pythia-14m", 1), ("pythia-14m-seeds", 9)])
def test_the_shipped_studies_of_published_models_are_planned(tmp_path, name, repositories):
    """The files are stand-ins: only what would be done is looked at."""
    hub = Hub()
    config = yaml.safe_load((Path(__file__).parents[2] / f"config/{name}.yaml").read_text())
    for series in config["series"].values():
        repo = hub.repo(series["repo"])
        repo.push("main", {".gitattributes": b""})
        for step in grids.GRIDS["pythia"]:
            repo.push(f"step{step}", {"config.json": b"{}"})
    folder = copy_of_repository(tmp_path / "phasegraph")
    with hub.serve():
        planned = to_do(folder, config=f"config/{name}.yaml", HF_ENDPOINT=hub.url)
    assert sum(count for rule, count in planned.items() if rule.startswith("fetch_checkpoint")) == 143 * repositories
    assert planned["audit_series"] == planned["fetch_tokenizer"] == repositories
    assert planned["write_report"] == len(config["studies"])
    assert sum(request.path.endswith("/refs") for request in hub.requests) == repositories
