"""Devices: which card a process takes, what is said when memory is short, half precision, and a GPU where there is one.

About 60 CPU seconds, most of them for the imports of processes of their own.
"""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from phasegraph.edges.engine import measure_edges
from phasegraph.errors import PhasegraphError
from phasegraph.model.device import choose_card, device_of, is_out_of_memory, memory_for, set_arithmetic, shortage
from phasegraph.model.load import components_of, read
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.induction import induction
from phasegraph.types import Answer, Measurement

CARDS = ["GPU-a", "GPU-b", "GPU-c"]

EVERYTHING = Measurement(embed=True, logits=True, qkv=True, by_position=True, control=True, answer=tuple(Answer))


def test_a_device_that_is_not_there_is_named():
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(PhasegraphError, match=r"model.device is cuda.*set it to auto or cpu"):
            device_of("cuda")


# ------------------------------------------------------------------------------------------------ a card of one's own
class Cards:
    """Processes that choose a card and keep it until they end."""

    def __init__(self, folder: Path):
        self.folder, self.context = folder, multiprocessing.get_context("fork")
        self.processes: list[multiprocessing.Process] = []

    def start(self, names: list[str], free: dict[int, int]):
        """Start a process; what is returned waits for its choice."""
        mine, its = self.context.Pipe()

        def hold() -> None:
            its.send(choose_card(names, free.__getitem__, self.folder))
            signal.pause()

        self.processes.append(self.context.Process(target=hold, daemon=True))
        self.processes[-1].start()
        its.close()
        return mine.recv

    def choose(self, names: list[str], free: dict[int, int] | None = None) -> int:
        return self.start(names, free or {})()

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].join()


@pytest.fixture
def cards(tmp_path):
    """Give a starter of processes, and end them."""
    cards = Cards(tmp_path / "cards")
    yield cards
    for number in range(len(cards.processes)):
        cards.kill(number)


def test_every_process_takes_a_card_of_its_own_and_a_killed_one_frees_it(cards):
    """Free memory is not asked for while there is a free card: the table of it is empty, and asking would fail."""
    assert [cards.choose(CARDS) for _ in CARDS] == [0, 1, 2]
    cards.kill(1)
    assert cards.choose(CARDS) == 1
    cards.kill(2)
    cards.kill(0)
    assert [cards.choose(CARDS) for _ in range(2)] == [0, 2]


def test_processes_that_start_together_get_different_cards(cards):
    names = [f"GPU-{number}" for number in range(8)]
    answers = [cards.start(names, {}) for _ in names]
    assert sorted(answer() for answer in answers) == list(range(8))


def test_when_all_cards_are_taken_it_is_the_one_with_the_most_free_memory(cards):
    assert [cards.choose(CARDS) for _ in CARDS] == [0, 1, 2]
    assert cards.choose(CARDS, {0: 5, 1: 9, 2: 7}) == 1
    assert cards.choose(CARDS, {0: 5, 1: 6, 2: 7}) == 2
    cards.kill(0)
    assert cards.choose(CARDS) == 0  # those that found none free hold none


def test_cards_are_told_apart_by_name_whatever_is_visible(cards):
    """As with CUDA_VISIBLE_DEVICES: number 0 of one process is number 1 of another."""
    assert cards.choose(["GPU-b"]) == 0
    assert cards.choose(["GPU-a", "GPU-b"]) == 0
    assert cards.choose(["GPU-b", "GPU-a", "GPU-c"]) == 2
    assert cards.choose(["GPU-b"], {0: 1}) == 0


@pytest.mark.parametrize("harm", ["open to others", "a link"])
def test_a_folder_that_is_not_private_is_refused(tmp_path, harm):
    folder = tmp_path / "cards"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if harm == "a link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(PhasegraphError, match=r"cards is not a private folder of yours; remove it or set TMPDIR"):
        choose_card(CARDS, {}.__getitem__, folder)
    assert not list((tmp_path / "elsewhere").iterdir())


# ------------------------------------------------------------------------------------------------ memory that is short
def test_a_lack_of_memory_is_told_from_other_errors():
    for wanted in (lambda: torch.empty(10**15), lambda: np.empty(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            wanted()
        assert is_out_of_memory(error.value)
        assert re.fullmatch(r"no room for (3814697266 MiB|7.11 PiB) more", shortage(error.value))
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a capacity of 79 GiB")
    assert is_out_of_memory(cuda)
    assert shortage(cuda) == "no room for 2.50 GiB more"
    with pytest.raises(RuntimeError) as error:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(error.value)
    assert not is_out_of_memory(PhasegraphError("out of memory, as was said already"))


def test_the_checkpoint_and_the_way_out_are_named():
    on_the_cpu = r"^40: not enough memory for this model \(no room for 38.* MiB more\); give the job more, or"
    with pytest.raises(PhasegraphError, match=on_the_cpu) as error, memory_for("40"):
        torch.empty(10**15)
    assert "\n" not in str(error.value)
    on_a_card = r"no room for 2.50 GiB more\); take a card with more, set model.device to cpu, or set .* to bfloat16"
    with pytest.raises(PhasegraphError, match=on_a_card), memory_for("40"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")


LOADING = """
import json, re, resource, sys
import torch
from phasegraph.errors import PhasegraphError
from phasegraph.model.load import read

small, large = sys.argv[1:]
for dtype in (torch.float32, torch.bfloat16):
    read(small, dtype)
torch.set_num_threads(1)
for dtype in (torch.float32, torch.bfloat16):
    size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
    for room in range(1, 200, 6):
        resource.setrlimit(resource.RLIMIT_AS, (size + room * 2**20, -1))
        try:
            read(large, dtype)
            found = ["loaded", ""]
        except Exception as error:
            found = [type(error).__name__, str(error)]
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(json.dumps([str(dtype), *found]))
        if found[0] == "loaded":
            break
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_weights_without_room_are_no_fault_of_the_checkpoint(models, tmp_path):
    """A fault of the checkpoint would be left out of the series in silence."""
    sizes = dict(vocab_size=64, hidden_size=512, num_hidden_layers=3, num_attention_heads=8, intermediate_size=2048)
    GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).save_pretrained(tmp_path / "40")  # 36 MiB
    command = [sys.executable, "-c", LOADING, models["parallel"], tmp_path / "40"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    for dtype in ("torch.float32", "torch.bfloat16"):
        kinds = [kind for name, kind, _ in found if name == dtype]
        assert len(kinds) > 3
        assert kinds == ["PhasegraphError"] * (len(kinds) - 1) + ["loaded"]
    for _, kind, text in found:
        if kind != "loaded":
            assert text.startswith(f"{tmp_path / '40'}: not enough memory for this model (")
            assert text.endswith("give the job more, or set the study's dtype to bfloat16")
            assert "\n" not in text


# ------------------------------------------------------------------------------------------------------- number formats
def test_the_setting_of_the_environment_does_not_shorten_float32():
    try:
        torch.set_float32_matmul_precision("medium")
        set_arithmetic(torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


def start_edges(
    folder: Path, out: Path, dtype: str = "float32", device: str = "cpu", **environment
) -> subprocess.Popen:
    """Start the whole ``python -m phasegraph.edges`` on a checkpoint."""
    task = dict(
        prompts=32, reference=16, segment=4, seed=0, start_token=0, token_range=None, answers=2, tokens="uniform"
    )
    study = dict(task=task, intervention="mean", measure="variance", nodes={"embed": True, "logits": True}, dtype=dtype)
    study |= dict(qkv=True, by_position=True, control=True, answer=["logit-difference", "kl"])
    names = ("total.npy", "direct.npy", "more.npz", "behaviour.npz")
    files = [word for name in names for word in (f"--{name.partition('.')[0]}", str(out / name))]
    command = [sys.executable, "-m", "phasegraph.edges", "--checkpoint", str(folder), "--study", json.dumps(study)]
    command += [*files, "--device", device, "--threads", "1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def results(process: subprocess.Popen, out: Path) -> dict[str, np.ndarray]:
    """Wait for it, and give all that it has written."""
    _, log = process.communicate()
    assert process.returncode == 0, log
    found = {name: np.load(out / f"{name}.npy") for name in ("total", "direct")}
    for name in ("more", "behaviour"):
        with np.load(out / f"{name}.npz") as stored:
            found |= {key: stored[key] for key in stored}
    return found


@pytest.fixture(scope="module")
def on_the_cpu(models, tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """Results of one checkpoint by number format."""
    outs = {dtype: tmp_path_factory.mktemp(dtype) for dtype in ("float32", "bfloat16")}
    processes = {dtype: start_edges(models["parallel"], out, dtype) for dtype, out in outs.items()}
    return {dtype: results(process, outs[dtype]) for dtype, process in processes.items()}


def test_the_whole_program_in_bfloat16(on_the_cpu):
    """Errors relative to float32, of a small random model: those of the demonstration stand in config/README.md."""
    exact, found = on_the_cpu["float32"], on_the_cpu["bfloat16"]
    assert found.keys() == exact.keys()
    np.testing.assert_array_equal(found["mask"], exact["mask"])
    for name in ("total", "direct", "total.second", "direct.v", "control.total"):
        assert found[name].dtype == np.float32
        possible = exact[name][0] > 0
        np.testing.assert_array_equal(found[name][0] > 0, possible)
        one, other = found[name][0][possible], exact[name][0][possible]
        error = abs(one / other - 1)
        assert 1e-4 < np.median(error) < 0.02, name
        assert np.quantile(error, 0.95) < 0.06, name
        assert spearmanr(one, other).statistic > 0.995, name
    np.testing.assert_allclose(found["loss_second"], exact["loss_second"], atol=0.05)


# ------------------------------------------------------------------------------------------------------------- on a GPU
def gpu(test):
    """Mark a test that needs a card."""
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
    return pytest.mark.gpu(missing(test))


@gpu
@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2", "opt", "llama"])
def test_a_gpu_gives_the_edges_of_the_cpu(models, task, name):
    """In float32 to 1e-5 of the largest value; in bfloat16, against float32, to a tenth, as on the CPU."""
    length, device = task.tokens.shape[1], device_of("cuda")
    set_arithmetic(device)
    model = read(models[name])
    behaves, exact = behaviour(model, task), measure_edges(components_of(model, length), task, EVERYTHING)
    model = read(models[name], device=device)
    for key, values in behaviour(model, task).items():
        np.testing.assert_allclose(values, behaves[key], atol=2e-5, err_msg=key)
    found = measure_edges(components_of(model, length), task, EVERYTHING)
    assert found.keys() == exact.keys()
    for key, values in exact.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-5 * np.nanmax(abs(values)), err_msg=key)
    rough = measure_edges(components_of(read(models[name], torch.bfloat16, device), length), task, EVERYTHING)
    for key in ("total", "direct", "direct.k", "total.second"):
        gap = abs(rough[key] - exact[key]).max() / exact[key].max()
        assert 1e-6 < gap < 0.1, key


@gpu
def test_the_whole_program_on_a_gpu_twice(models, on_the_cpu, tmp_path):
    """The same bits each time, and the numbers of the CPU although the environment asks for TF32."""
    runs = [tmp_path / "one", tmp_path / "two"]
    for out in runs:
        process = start_edges(models["parallel"], out, device="cuda", TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="1")
        found = results(process, out)
    for name in ("total.npy", "direct.npy", "more.npz", "behaviour.npz"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    for name in ("total", "direct", "total.second", "direct.v", "control.total"):
        exact = on_the_cpu["float32"][name]
        np.testing.assert_allclose(found[name], exact, rtol=1e-4, atol=1e-5 * exact.max(), err_msg=name)


@gpu
def test_a_gpu_without_memory_halves_and_goes_on(capsys):
    """The first cuts want some 240 MiB beside what the libraries hold, and there are 128."""
    device = device_of("cuda")
    sizes = dict(vocab_size=64, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, intermediate_size=256)
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, attn_implementation="eager")).eval().to(device)
    task = induction(prompts=64, reference=16, segment=32, token_range=(1, 64))
    components, total = components_of(model, 65), Measurement(direct=False)
    torch.cuda.reset_peak_memory_stats(device)
    whole = measure_edges(components, task, total, tokens_per_call=10**6)  # and libraries take what they need
    wanted = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(device)
    assert wanted - held > 160 * 2**20, "the test wants too little to fail"
    memory = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 128 * 2**20) / memory, device)
    try:
        found = measure_edges(components, task, total, tokens_per_call=10**6)
        log = capsys.readouterr().err
        assert "out of memory (no room for " in log
        assert "beginning again with model.memory_budget at 512 MiB" in log
        np.testing.assert_allclose(found["total"], whole["total"], atol=1e-6, rtol=1e-5)
        with pytest.raises(PhasegraphError, match=r"take a card with more"), memory_for("40"):
            torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@gpu
def test_two_processes_on_one_card_both_run(models, tmp_path):
    """The second finds it taken, and takes the one with the most free memory: the same."""
    (tmp_path / "tmp").mkdir()
    environment = {"TMPDIR": str(tmp_path / "tmp"), "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    environment["CUDA_VISIBLE_DEVICES"] = environment["CUDA_VISIBLE_DEVICES"].partition(",")[0]
    outs = [tmp_path / "one", tmp_path / "two"]
    processes = [start_edges(models["parallel"], out, device="auto", **environment) for out in outs]
    one, two = (results(process, out) for process, out in zip(processes, outs, strict=True))
    np.testing.assert_array_equal(one["total"], two["total"])
    locks = list((tmp_path / "tmp" / f"phasegraph-cards-{os.getuid()}").iterdir())
    assert [lock.suffix for lock in locks] == [".lock"]
