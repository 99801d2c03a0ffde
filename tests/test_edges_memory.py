"""Running out of memory while edges are measured: real failures of the allocator, on the CPU (20 CPU seconds)."""

import dataclasses
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from phasegraph.edges.engine import measure_edges
from phasegraph.errors import PhasegraphError
from phasegraph.model.components import Components
from phasegraph.model.load import components_of, read
from phasegraph.types import Answer, Measurement

MORE_THAN_THERE_IS = 10**15
"""Numbers; no address space has room for them."""

MEASUREMENT = Measurement(by_position=True, control=True, answer=tuple(Answer))


@pytest.fixture(scope="module")
def components(models, task) -> Components:
    return components_of(read(models["parallel"]), task.tokens.shape[1])


def assert_same(found: dict, expected: dict) -> None:
    """Equal up to the rounding of matrix products of other sizes, as for any two cuts."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, rtol=2e-6, err_msg=name)


class Greedy:
    """A layer that cannot be called with more than so many rows, from its third call on."""

    def __init__(self, components: Components, rows: int):
        self.components, self.rows = components, rows
        self.calls, self.failures, self.alive = 0, 0, []
        self.kept: list[weakref.ref] = []

    def __call__(self, layer: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.alive += [reference() is not None for reference in self.kept]
        self.kept.clear()
        self.calls += 1
        if len(x) > self.rows and self.calls > 2:
            self.failures += 1
            self.kept.append(weakref.ref(x))
            torch.empty(MORE_THAN_THERE_IS)
        return self.components.both(layer, x)


def test_a_part_that_failed_is_not_counted_twice(components, task, capsys):
    """Prompts and slabs that were done before the failure are done again; the failed tensors are gone by then."""
    whole = measure_edges(components, task, MEASUREMENT)
    greedy = Greedy(components, rows=8)
    gc.disable()  # nothing may hang in a cycle until a collection that might not come
    try:
        found = measure_edges(dataclasses.replace(components, both=greedy), task, MEASUREMENT)
    finally:
        gc.enable()
    assert greedy.failures > 1
    assert greedy.alive == [False] * greedy.failures
    assert_same(found, whole)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == greedy.failures
    assert all(line.startswith("out of memory (no room for 3814697266 MiB more) with model.memory") for line in lines)
    assert "beginning again with model.memory_budget at 512 MiB (prompts 32, ablations 9," in lines[0]


def test_a_budget_far_above_the_need_is_not_halved_in_vain(components, task, capsys):
    """Each attempt is with other sizes than the last one."""
    greedy, total = Greedy(components, rows=2), Measurement(direct=False)
    greedily = dataclasses.replace(components, both=greedy)
    measure_edges(greedily, task, total, memory_budget=2**60, tokens_per_call=10**15)
    sizes = [line.rpartition("(")[2] for line in capsys.readouterr().err.splitlines()]
    assert len(sizes) > 3
    assert len(set(sizes)) == len(sizes)
    assert sizes[-1] == "prompts 2, ablations 9, ablations in a call 1)"


def test_when_nothing_fits_it_is_said_once(components, task):
    greedy = Greedy(components, rows=0)
    with pytest.raises(PhasegraphError, match=r"even with one prompt and one ablation.*model.memory_budget") as error:
        measure_edges(dataclasses.replace(components, both=greedy), task)
    assert "\n" not in str(error.value)
    assert "shorter task.segment" in str(error.value)


def test_another_error_is_not_taken_for_a_lack_of_memory(components, task, capsys):
    def wrong(layer, x):
        return x @ x, x

    with pytest.raises(RuntimeError, match=r"(size|shape)"):
        measure_edges(dataclasses.replace(components, both=wrong), task)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------- a limit on the address space
SCRIPT = """
import re, resource, sys
import numpy as np, torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from phasegraph.edges.engine import measure_edges
from phasegraph.edges.memory import keep_freed_memory, release_memory
from phasegraph.errors import user_errors
from phasegraph.model.load import components_of
from phasegraph.tasks.induction import induction
from phasegraph.types import Answer, Measurement

out, segment, room, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "keep"
torch.set_num_threads(1)
torch.manual_seed(0)
if keep:
    keep_freed_memory()
sizes = dict(vocab_size=64, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, intermediate_size=256)
model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, attn_implementation="eager")).eval()

def measure(segment):
    task = induction(prompts=16, reference=16, segment=segment, token_range=(1, 64))
    components = components_of(model, 2 * segment + 1)
    return lambda: measure_edges(
        components, task, Measurement(logits=True, answer=(Answer.KL,)), memory_budget=2**30, tokens_per_call=10**6
    )

measure(2)()  # libraries load what they need, which takes address space too
run = measure(segment)
release_memory()
size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + room * 2**20, -1))
with user_errors():
    found = run()
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print("without a limit", file=sys.stderr, flush=True)
np.savez(out, **found, **{f"whole {name}": values for name, values in run().items()})
"""


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
@pytest.mark.parametrize("keep", ["keep", "give back"])
def test_with_less_address_space_than_wanted_the_result_is_the_same(tmp_path, keep):
    """The first cuts want more than 60 MiB, and there are 24, with and without the setting of the job's C library."""
    process = start(tmp_path / "found.npz", 20, 24, keep)
    _, log = process.communicate()
    assert process.returncode == 0, log
    before, _, after = log.partition("without a limit\n")
    assert 2 <= before.count("beginning again") == before.count("\n")
    assert "Traceback" not in log
    assert after == ""
    with np.load(tmp_path / "found.npz") as stored:
        found = {name: stored[name] for name in stored if not name.startswith("whole ")}
        assert_same(found, {name: stored[f"whole {name}"] for name in found})
    assert found["total"].max() > 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_without_address_space_for_a_single_prompt_one_line_says_so(tmp_path):
    process = start(tmp_path / "found.npz", 200, 1, "give back")
    _, log = process.communicate()
    *attempts, last = log.splitlines()
    assert process.returncode == 1
    assert all(line.startswith("out of memory (") for line in attempts)
    assert last.startswith("phasegraph: error: out of memory (")
    assert last.endswith("give the job or the card more memory or take a shorter task.segment")
    assert not (tmp_path / "found.npz").exists()
