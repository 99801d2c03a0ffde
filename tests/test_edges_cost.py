"""The predicted cost against counted FLOPs, written files and recorded measurements. About 10 seconds."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from phasegraph.config import measurement
from phasegraph.edges import cost, memory
from phasegraph.edges.__main__ import _measurement, _task, main
from phasegraph.edges.engine import measure_edges
from phasegraph.model import neox
from phasegraph.model.load import components_of, read
from phasegraph.model.size import size_of
from phasegraph.network.checkpoint import checkpoint
from phasegraph.tasks import behaviour as behaviours
from phasegraph.types import GROUPS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
scaling = importlib.import_module("scaling")

STUDIES = {
    "default": {},
    "total": {"direct": False, "answer": []},
    "qkv": {"qkv": True},
    "resample": {"intervention": "resample"},
    "nodes": {"answer": ["kl"], "nodes": {"embed": True, "logits": True}},
    "all": {"qkv": True, "control": True, "answer": ["kl"], "nodes": {"embed": True, "logits": True}},
}


def study_of(prompts: int = 16, segment: int = 5, **changes) -> dict:
    """Give a study by default with few and short prompts."""
    study = scaling.default_study()
    return study | changes | {"task": study["task"] | {"prompts": prompts, "reference": 8, "segment": segment}}


def size_at(folder: Path):
    return size_of(json.loads((folder / "config.json").read_text()))


COUNTED = [
    *(("parallel", name) for name in STUDIES if name != "nodes"),
    ("sequential", "default"),
    ("sequential", "qkv"),
    ("gpt2", "default"),
    ("llama", "nodes"),
    ("gptj", "qkv"),
]


@pytest.mark.parametrize(("architecture", "name"), COUNTED)
def test_flops_are_those_that_torch_counts(models, architecture, name):
    """Of behaviour, check and engine together; in one case with more than a chunk of queries."""
    study = study_of(**STUDIES[name], segment=35 if (architecture, name) == ("parallel", "default") else 3)
    folder = models[architecture]
    model, task = read(folder), _task(study["task"], 29)
    with FlopCounterMode(display=False) as counter:
        behaviours.behaviour(model, task)
        components = components_of(model, task.tokens.shape[1])
        measure_edges(components, task, _measurement(study, direct=study["direct"]))
    assert task.tokens.shape[1] == cost.length_of(study["task"])
    assert cost.flops(size_at(folder), study) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_constants_are_those_of_the_code_that_runs():
    assert cost.QUERIES == neox.QUERIES
    assert cost.LOGITS_PER_PASS == behaviours.LOGITS_PER_PASS
    assert memory.TOKENS_PER_CALL["cpu"] == cost.TOKENS_PER_CALL


def test_the_engine_needs_what_is_predicted_and_not_less(models):
    """With that budget nothing is cut, with less something is."""
    folder, study = models["parallel"], study_of()
    size, task = size_at(folder), study["task"]
    components = components_of(read(folder), cost.length_of(task))
    wanted = cost._engine_bytes(size, study)

    def cuts(budget: int) -> memory.Cuts:
        shape = {"prompts": task["prompts"], "length": cost.length_of(task), "width": size.width}
        sources = cost.nodes_of_study(size, study)
        return memory.cut(
            components, **shape, sources=sources, answers=0, budget=budget, tokens_per_call=cost.TOKENS_PER_CALL
        )

    assert cuts(2 * wanted) == cuts(10**12)
    assert cuts(wanted // 2) != cuts(10**12)


def test_everything_but_the_means_and_the_check_grows_with_the_prompts():
    size = size_of(scaling.config_of("160m"))
    one, two, three = (cost.flops(size, study_of(prompts)) for prompts in (16, 32, 48))
    assert three - two == two - one
    assert two / one == pytest.approx(2, rel=0.05)


def test_storage_is_that_of_the_files(tmp_path, monkeypatch, capsys):
    """What the programs write for one checkpoint of 4 layers of 12 heads."""
    folder, out = tmp_path / "model", tmp_path / "out"
    sizes = dict(vocab_size=29, hidden_size=24, num_hidden_layers=4, num_attention_heads=12, intermediate_size=24)
    GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, rotary_pct=1.0)).save_pretrained(folder)
    study = study_of(segment=3)
    named = {name: out / f"{name}.{kind}" for name, kind in (("total", "npy"), ("direct", "npy"), ("more", "npz"))}
    named |= {"behaviour": out / "behaviour.npz"}
    options = [text for name, path in named.items() for text in (f"--{name}", str(path))]
    monkeypatch.setattr(
        sys, "argv", ["edges", "--checkpoint", str(folder), "--study", measurement(study), *options, "--device", "cpu"]
    )
    main()
    named["total"].rename(out / "0.npy")  # the network stage reads the step from the name
    checkpoint(out / "0.npy", named["direct"], named["more"], out / "network.npz", out)
    written = sum(path.stat().st_size for path in out.iterdir())
    assert cost.storage_bytes(size_at(folder), study) == pytest.approx(written, rel=0.05)  # backbones vary in size
    (out / "0.npy").rename(named["total"])
    assert np.load(named["total"]).shape == (GROUPS + 1, *[cost.nodes_of_study(size_at(folder), study)] * 2)
    weights = (folder / "model.safetensors").stat().st_size
    assert cost.weights_bytes(size_at(folder), bits=32) == pytest.approx(weights, rel=0.2)  # the rest is its header


@pytest.fixture(scope="module")
def recorded() -> list[dict]:
    return json.loads((ROOT / "benchmarks/scaling.json").read_text())["rows"]


def test_memory_bounds_what_was_measured(recorded):
    for row in recorded:
        bound = cost.memory_mib(size_of(scaling.config_of(row["model"])), scaling.study_of(scaling.case_of(row)), 1024)
        assert 0.5 <= max(row["peak_mib"]) / bound <= 1, row


def test_seconds_are_near_what_was_measured(recorded):
    """Three sizes at least, none off by more than a third."""
    ratios = {}
    for row in recorded:
        size, study = size_of(scaling.config_of(row["model"])), scaling.study_of(scaling.case_of(row))
        ratios[scaling.case_of(row)] = cost.seconds(size, study) / median(row["cpu_seconds"])
    assert len({case.model for case in ratios}) >= 3
    assert all(0.67 < ratio < 1.5 for ratio in ratios.values()), ratios


def test_a_gpu_is_quicker_and_half_precision_quicker_still():
    size = size_of(scaling.config_of("1.4b"))
    full, half = (cost.seconds(size, study_of(128, 50, dtype=dtype), "cuda") for dtype in ("float32", "float16"))
    assert half < full < cost.seconds(size, study_of(128, 50))


def test_the_page_shows_what_the_code_computes(recorded):
    page = (ROOT / "docs/scaling.md").read_text()
    for table in scaling.tables(recorded):
        assert table in page, "run python benchmarks/scaling.py --tables and put the tables into docs/scaling.md"


def test_the_page_states_the_prices_that_its_table_assumes():
    page = (ROOT / "docs/scaling.md").read_text()
    prices = re.findall(r"\$(\d+\.\d\d) an? (core|GPU) hour", page)
    assert {kind: float(price) for price, kind in prices} == {"core": scaling.CORE_HOUR, "GPU": scaling.GPU_HOUR}


def test_planning_needs_the_standard_library_only():
    code = "import sys, phasegraph.edges.cost; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
