"""The real client of the hub against a server on loopback. About 60 s, much of it waiting as a server asks."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hub_server import Content, Hub
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from phasegraph.errors import PhasegraphError
from phasegraph.files import sha256
from phasegraph.series import grids
from phasegraph.series.convert import tensors_of, write_safetensors
from phasegraph.series.fault import CheckpointFault, read_fault
from phasegraph.series.grids import Place
from phasegraph.series.hub import fetch, resolve
from phasegraph.series.pins import Pin, pin_of, read_pins, write_pins
from phasegraph.series.tokenizer import fetch_tokenizer

pytestmark = pytest.mark.usefixtures("own_hub_settings")

REPO = "lab/pythia-tiny"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]
CLEAN, BIN, SHARDS, BIN_SHARDS, LEGACY = 256, 512, 1000, 2000, 128
LENGTH = 32


# ---- what the server holds


def masked(weights):
    """Add the buffers that old files hold beside the weights."""
    mask = torch.ones(1, 1, LENGTH, LENGTH).tril().bool()
    extra = {}
    for layer in range(2):
        at = f"gpt_neox.layers.{layer}.attention."
        extra |= {at + "bias": mask.clone(), at + "masked_bias": torch.tensor(-1e9)}
        extra[at + "rotary_emb.inv_freq"] = torch.arange(1.0, 3.0)
    return weights | extra


def pickled(tensors, path, **settings):
    torch.save(tensors, path, **settings)
    return Content(path.read_bytes())


def sharded(tensors, name, save):
    """Split over three files with an index, as transformers does."""
    stem, suffix = name.rsplit(".", 1)
    files, places = {}, {}
    for number in range(3):
        shard = f"{stem}-{number + 1:05}-of-00003.{suffix}"
        part = dict(list(sorted(tensors.items()))[number::3])
        files[shard] = save(part)
        places |= dict.fromkeys(part, shard)
    return files | {f"{name}.index.json": json.dumps({"metadata": {}, "weight_map": places}).encode()}


def files_of(step, weights, place):
    everything = masked(weights)
    junk = {"README.md": b"read me", "optimizer.pt": Content(b"never asked for")}
    if step == BIN:
        return junk | {"pytorch_model.bin": pickled(everything, place / "b.bin")}
    if step == LEGACY:
        legacy = pickled(everything, place / "l.bin", _use_new_zipfile_serialization=False)
        return junk | {"pytorch_model.bin": legacy}
    if step == BIN_SHARDS:
        return junk | sharded(everything, "pytorch_model.bin", lambda part: pickled(part, place / "s.bin"))
    if step == SHARDS:
        save = lambda part: Content(safetensors.torch.save(part))  # noqa: E731
        return junk | sharded(everything, "model.safetensors", save)
    tensors = weights if step == CLEAN else everything
    both = {"pytorch_model.bin": Content(b"not to be asked for: there is a safetensors file")}
    return junk | both | {"model.safetensors": Content(safetensors.torch.save(tensors, {"format": "pt"}))}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """The files of every step, and the weights that they were made from."""
    place = tmp_path_factory.mktemp("truth")
    config = GPTNeoXConfig(
        vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        rotary_pct=0.5, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config.architectures = ["GPTNeoXForCausalLM"]
    shapes = {name: value.shape for name, value in GPTNeoXForCausalLM(config).state_dict().items()}
    shapes["embed_out.weight"] = shapes.pop("lm_head.weight")  # what it is called in files
    generator = torch.Generator().manual_seed(0)
    weights, files = {}, {}
    for step in STEPS:
        dtype = torch.bfloat16 if step == BIN else torch.float16
        weights[step] = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
        files[step] = files_of(step, weights[step], place) | {"config.json": config.to_json_string().encode()}
    return weights, files


@pytest.fixture
def hub(truth):
    hub = Hub()
    repo = hub.repo(REPO)
    repo.push("main", {".gitattributes": b"*.bin filter=lfs"})  # as in the repositories of Pythia's seeds
    for step, files in truth[1].items():
        repo.push(f"step{step}", files)
    with hub.serve():
        yield hub


def commit_of(hub, step):
    return hub.repos[REPO].branches[f"step{step}"]


def get(hub, step, out, **settings):
    fetch(REPO, commit_of(hub, step), out, endpoint=hub.url, **settings)


def assert_holds(folder, weights):
    """The folder has two files, and the one is these tensors, bit by bit."""
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    found = safetensors.torch.load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def command(hub, *arguments, **environment):
    """Start the command line with this server as its hub."""
    return subprocess.Popen(
        [sys.executable, "-m", "phasegraph.series", *map(str, arguments)],
        env=os.environ | {"HF_ENDPOINT": hub.url} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(hub, *arguments, **environment):
    process = command(hub, *arguments, **environment)
    errors = process.communicate(timeout=60)[1]
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines()


# ---- grids and patterns


def test_the_named_grids_are_the_published_ones():
    pythia = grids.series_steps("pythia")
    assert len(pythia) == 154
    assert pythia[:12] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    assert np.diff(pythia[11:]).tolist() == [1000] * 142
    assert grids.series_steps("pythia-linear") == pythia[11:]
    assert len(grids.series_steps("pythia-linear")) == 143
    assert grids.series_steps({"start": 0, "stop": 20, "every": 10, "also": [3]}) == [0, 3, 10, 20]
    assert grids.series_steps([5, 1]) == [1, 5]
    with pytest.raises(PhasegraphError, match=r"series\.a\.steps: there is no grid 'pythia-14m'; there is pythia"):
        grids.series_steps("pythia-14m", "series.a.steps")


@pytest.mark.parametrize(
    ("pattern", "revision", "place"),
    [
        ("step{step}", "step143000", Place(143000)),
        ("checkpoint-{step}", "checkpoint-400", Place(400)),
        ("step-{step}", "step-160000", Place(160000)),
        ("stage1-step{step}-tokens{tokens}B", "stage1-step1000-tokens3B", Place(1000, 3 * 10**9)),
        ("stage{stage}-step{step}-tokens{tokens}B", "stage2-soup1-step7-tokens2B", Place(7, 2 * 10**9, "2-soup1")),
        ("step{step}-tokens{tokens}T", "step9-tokens1.5T", Place(9, 15 * 10**11)),
        ("step{step}-seed-{stage}", "step20-seed-default", Place(20, None, "default")),
        ("{step}", "128000", Place(128000)),
    ],
)  # fmt: skip
def test_a_pattern_reads_and_spells_a_name(pattern, revision, place):
    assert grids.parse(pattern, revision) == place
    assert grids.spell(pattern, place) == revision
    assert grids.parse(pattern, "x" + revision + "x") is None or "{stage}" in pattern


def test_an_index_counts_as_steps_and_zeros_in_front_are_read():
    assert grids.parse("ckpt_{index}", "ckpt_012") == Place(12)
    assert grids.parse("ckpt_{index}", "ckpt_012", steps_per_index=500) == Place(6000)
    assert grids.spell("ckpt_{index}", Place(6000), steps_per_index=500) == "ckpt_12"
    assert grids.spell("stage1-step{step}-tokens{tokens}B", Place(1000)) is None
    names = ["main", "ckpt_000", "ckpt_001", "ckpt_010"]
    found = grids.find("ckpt_{index}", names, "lab/amber", steps_per_index=2)
    assert {step: name for step, (name, _) in found.items()} == {0: "ckpt_000", 2: "ckpt_001", 20: "ckpt_010"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("stp{stp}", r"pattern 'stp\{stp\}': \{stp\} is not a field; the fields are \{step\}, \{index\}"),
        ("step{step", "a brace without its partner"),
        ("step", r"must have either \{step\} or \{index\}"),
        ("{tokens}B", r"must have either \{step\} or \{index\}"),
        ("{step}-{index}", r"must have either \{step\} or \{index\}"),
        ("{step}-{step}", "twice"),
        ("stepp{step}", r"no revision of lab/x matches .*; there is main, step2, step10, .*step13, \.\.\. \(8\)"),
        ("s{stage}p{step}", r"step 2 of lab/x has two revisions, step2 and stop2, .*write the stage into the pattern"),
    ],
)  # fmt: skip
def test_a_typo_in_a_pattern_is_named(pattern, message):
    names = ["step10", "step2", "main", "step11", "step12", "step13", "step14", "stop2"]
    with pytest.raises(PhasegraphError, match=message) as error:
        grids.find(pattern, names, "lab/x")
    assert "\n" not in str(error.value)


def test_what_the_snakefile_reads_imports_the_standard_library_alone():
    code = "import sys, phasegraph.series.grids, phasegraph.series.pins; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in loaded} & {"numpy", "torch", "huggingface_hub", "safetensors"} == set()


# ---- resolving


def test_every_revision_is_pinned_by_one_request(hub, tmp_path):
    pins = resolve(REPO, steps=STEPS, tokens_per_step=2048, endpoint=hub.url)
    assert [pin.step for pin in pins] == STEPS
    assert all(pin.commit == commit_of(hub, pin.step) and pin.revision == f"step{pin.step}" for pin in pins)
    assert [pin.tokens for pin in pins] == [step * 2048 for step in STEPS]
    assert len(hub.requests) == 1
    assert resolve(REPO, endpoint=hub.url) == [Pin(p.step, p.repo, p.revision, p.commit) for p in pins]
    write_pins(pins, tmp_path / "pins.tsv")
    assert read_pins(tmp_path / "pins.tsv") == pins
    assert pin_of(tmp_path / "pins.tsv", 8) == pins[4]


def test_a_branch_that_moves_does_not_move_a_pin(hub):
    before = resolve(REPO, steps=STEPS[:3], endpoint=hub.url)
    hub.repos[REPO].push("step1", {"config.json": b"{}"})
    assert resolve(REPO, steps=STEPS[:3], known=before, endpoint=hub.url) == before
    assert len(hub.requests) == 1  # the second call had all it needed
    assert resolve(REPO, steps=STEPS[:4], known=before, endpoint=hub.url)[:3] == before
    assert resolve(REPO, steps=STEPS[:3], endpoint=hub.url)[1].commit == commit_of(hub, 1) != before[1].commit
    assert resolve(REPO, {1: "step2"}, known=before, endpoint=hub.url)[0].commit == commit_of(hub, 2)


def test_names_with_tokens_and_irregular_names_are_found(hub):
    repo = hub.repo("lab/olmo")
    for name in ("stage1-step1000-tokens3B", "stage1-step2000-tokens5B", "stage2-step1000-tokens9B", "odd"):
        repo.push(name, {"config.json": name.encode()})
    pins = resolve("lab/olmo", "stage1-step{step}-tokens{tokens}B", [1000, 2000], endpoint=hub.url)
    assert [(pin.tokens, pin.commit) for pin in pins] == [
        (3 * 10**9, repo.branches["stage1-step1000-tokens3B"]),
        (5 * 10**9, repo.branches["stage1-step2000-tokens5B"]),
    ]
    commit = repo.branches["odd"]
    table = {7: "odd", 9: commit}
    assert [pin.commit for pin in resolve("lab/olmo", table, endpoint=hub.url)] == [commit, commit]
    with pytest.raises(PhasegraphError, match="lab/olmo has no revision for 8; there is odd, stage1-step1000-tokens3B"):
        resolve("lab/olmo", {8: "oddd"}, endpoint=hub.url)


def test_a_renamed_repository_is_followed(hub, truth, tmp_path):
    hub.renamed["lab/old-name"] = REPO
    (pin,) = resolve("lab/old-name", steps=[0], endpoint=hub.url)
    fetch(pin.repo, pin.commit, tmp_path / "0", endpoint=hub.url)
    assert_holds(tmp_path / "0", truth[0][0])


def test_missing_steps_are_named_or_kept_without_a_commit(hub, tmp_path):
    with pytest.raises(PhasegraphError, match="has no revision for 3, 5, 6 and 1 more; there is main, step0, step1"):
        resolve(REPO, steps=[3, 4, 5, 6, 7], endpoint=hub.url)
    pins = resolve(REPO, steps=[3, 4], allow_missing=True, endpoint=hub.url)
    assert [bool(pin.commit) for pin in pins] == [False, True]
    asked = len(hub.requests)
    assert resolve(REPO, steps=[3, 4], allow_missing=True, known=pins, endpoint=hub.url) == pins
    assert len(hub.requests) == asked
    with pytest.raises(PhasegraphError, match="has no revision for 3;"):
        resolve(REPO, steps=[3, 4], known=pins, endpoint=hub.url)
    write_pins(pins, tmp_path / "pins.tsv")
    with pytest.raises(CheckpointFault, match="step 3 has no revision in lab/pythia-tiny"):
        pin_of(tmp_path / "pins.tsv", 3)


# ---- fetching


def test_every_layout_becomes_the_same_two_files(hub, truth, tmp_path):
    for step in STEPS:
        get(hub, step, tmp_path / str(step))
        assert_holds(tmp_path / str(step), truth[0][step])
        assert (tmp_path / str(step) / "config.json").read_bytes() == truth[1][step]["config.json"]
    assert not [path for path in (tmp_path / ".downloads").iterdir() if path.is_dir()]  # nothing is kept
    asked = {request.path.rsplit("/", 1)[-1] for request in hub.requests}
    assert not asked & {"README.md", "optimizer.pt"}
    assert not [r for r in hub.asked("pytorch_model.bin") if commit_of(hub, CLEAN) in r.path]
    linked = tmp_path / str(CLEAN) / "model.safetensors"
    assert sha256(linked) == truth[1][CLEAN]["model.safetensors"].sha256  # not rewritten
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / str(SHARDS), output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(model.get_output_embeddings().weight.half(), truth[0][SHARDS]["embed_out.weight"])


def test_the_written_file_is_the_one_that_safetensors_writes(tmp_path):
    generator = torch.Generator().manual_seed(1)
    draw = lambda dtype, *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    tensors = {
        "z": draw(torch.bfloat16, 3),
        "a": draw(torch.float32, 5, 2),
        "é": draw(torch.float64, 1)[0],
        "i": torch.ones(2).int(),
    }
    tensors |= {
        "odd": torch.tensor([True, False, True]),
        "t": draw(torch.float16, 4, 3).T.contiguous(),
        "0": torch.ones(0, 4),
    }
    torch.save(tensors, tmp_path / "a.bin")
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors", {"format": "pt"})
    for source in ("a.bin", "b.safetensors"):
        digest = write_safetensors(tensors_of(tmp_path / source), tmp_path / "out.safetensors")
        assert digest == hashlib.sha256((tmp_path / "out.safetensors").read_bytes()).hexdigest()
        found = safetensors.torch.load_file(tmp_path / "out.safetensors")
        assert all(
            torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
        )
        assert found.keys() == tensors.keys()
    assert (tmp_path / "out.safetensors").stat().st_size <= (tmp_path / "b.safetensors").stat().st_size + 8


def test_a_second_run_offline_needs_no_server(hub, truth, tmp_path):
    """Both commands, as a user types them; the second time with HF_HUB_OFFLINE=1."""
    pins, out = tmp_path / "pins.tsv", tmp_path / "1000"
    calls = [
        ("resolve", "--repo", REPO, "--steps", "0,1,1000", "--out", pins),
        ("fetch", "--pins", pins, "--step", SHARDS, "--out", out),
    ]
    for call in calls:
        assert run(hub, *call)[0] == 0
    assert [pin.commit for pin in read_pins(pins)] == [commit_of(hub, step) for step in (0, 1, SHARDS)]
    assert_holds(out, truth[0][SHARDS])
    before, asked = {path: path.stat().st_mtime_ns for path in out.iterdir()}, len(hub.requests)
    for call in calls:
        assert run(hub, *call, HF_HUB_OFFLINE="1")[0] == 0
    assert len(hub.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before

    code, errors = run(hub, "fetch", "--pins", pins, "--step", 1, "--out", tmp_path / "1", HF_HUB_OFFLINE="1")
    assert code == 1
    assert "is not on this machine and HF_HUB_OFFLINE forbids asking" in errors[-1]
    code, errors = run(hub, "resolve", "--repo", REPO, "--steps", "2", "--out", tmp_path / "2.tsv", HF_HUB_OFFLINE="1")
    assert code == 1
    assert errors[-1].startswith(f"phasegraph: error: {REPO} is not on this machine")
    assert len(hub.requests) == asked
    assert not (tmp_path / "1").exists()
    assert not (tmp_path / "2.tsv").exists()


def test_kept_downloads_and_the_hubs_own_cache_serve_offline(hub, truth, tmp_path):
    get(hub, 4, tmp_path / "4", keep=True)
    (tmp_path / "4" / "model.safetensors").write_bytes(b"damaged")
    repository = ("--repo", REPO, "--commit", commit_of(hub, 4))
    assert run(hub, "fetch", *repository, "--out", tmp_path / "4", "--keep", HF_HUB_OFFLINE="1")[0] == 0
    assert_holds(tmp_path / "4", truth[0][4])

    from huggingface_hub import snapshot_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    snapshot_download(REPO, revision=f"step{SHARDS}", endpoint=hub.url, cache_dir=cache)
    asked = len(hub.requests)
    arguments = ("--repo", REPO, "--steps", SHARDS, "--out", tmp_path / "pins.tsv")
    assert run(hub, "resolve", *arguments, HF_HUB_OFFLINE="1")[0] == 0
    arguments = ("--pins", tmp_path / "pins.tsv", "--step", SHARDS, "--out", tmp_path / "1000")
    assert run(hub, "fetch", *arguments, HF_HUB_OFFLINE="1")[0] == 0
    assert_holds(tmp_path / "1000", truth[0][SHARDS])
    assert len(hub.requests) == asked


# ---- the network at its worst

BIG = "lab/big"


@pytest.fixture
def big(hub):
    """One revision of 26 MB."""
    generator = torch.Generator().manual_seed(2)
    weights = {"embed_in.weight": torch.randn(50304, 128, generator=generator)}
    files = {"config.json": b"{}", "model.safetensors": Content(safetensors.torch.save(weights))}
    return weights, hub.repo(BIG).push("step0", files)


def ranges(hub):
    return [(request.range, request.sent) for request in hub.asked("model.safetensors") if request.status in (200, 206)]


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_broken_connection_is_resumed(kind, hub, big, tmp_path):
    weights, commit = big
    hub.fault(kind, "model.safetensors", at=15_000_000)
    fetch(BIG, commit, tmp_path / "0", endpoint=hub.url)
    assert_holds(tmp_path / "0", weights)
    size = hub.repos[BIG].commits[commit]["model.safetensors"].size
    assert ranges(hub) == [(None, 15_000_000), ("bytes=15000000-", size - 15_000_000)]


def test_a_file_that_breaks_again_and_again_arrives_as_long_as_it_grows(hub, big, tmp_path, monkeypatch):
    sleep, waits = time.sleep, []
    monkeypatch.setattr(time, "sleep", lambda seconds: (waits.append(seconds), sleep(min(seconds, 0.01))))
    for number in range(7):  # more often than a request is repeated that brings nothing
        hub.fault("cut", "model.safetensors", at=(number + 1) * 3_000_000)
    fetch(BIG, big[1], tmp_path / "0", endpoint=hub.url)
    assert_holds(tmp_path / "0", big[0])
    assert [start for start, _ in ranges(hub)] == [None] + [f"bytes={n * 3_000_000}-" for n in range(1, 8)]
    assert [wait for wait in waits if wait >= 1] == [1] * 7


def test_a_server_that_ignores_ranges_sends_the_file_anew(hub, big, tmp_path):
    weights, commit = big
    hub.fault("cut", "model.safetensors", at=15_000_000)
    hub.fault("no ranges", "model.safetensors")
    fetch(BIG, commit, tmp_path / "0", endpoint=hub.url)
    assert_holds(tmp_path / "0", weights)
    assert [sent for _, sent in ranges(hub)][1] == hub.repos[BIG].commits[commit]["model.safetensors"].size


def test_a_server_that_has_less_than_it_lists_is_named(hub, big, tmp_path, monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    stored = hub.repos[BIG].commits[big[1]]["model.safetensors"]
    stored.parts = (stored.parts[0][:1000],)
    with pytest.raises(PhasegraphError, match="served with another content than its hash says, twice") as error:
        fetch(BIG, big[1], tmp_path / "0", endpoint=hub.url)
    assert not isinstance(error.value, CheckpointFault)
    assert not (tmp_path / "0").exists()


def test_a_killed_download_goes_on_in_the_next_process(hub, big, tmp_path):
    weights, commit = big
    hub.fault("stall", "model.safetensors", at=15_000_000)
    arguments = ("fetch", "--repo", BIG, "--commit", commit, "--out", tmp_path / "0")
    process = command(hub, *arguments)
    part = tmp_path / ".downloads" / commit / "model.safetensors.part"
    for _ in range(600):
        if part.is_file() and part.stat().st_size > 14_900_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert 14_900_000 < kept <= 15_000_000  # all but what a buffer held
    assert not (tmp_path / "0").exists()
    assert run(hub, *arguments)[0] == 0
    assert_holds(tmp_path / "0", weights)
    assert ranges(hub)[1][0] == f"bytes={kept}-"


def test_a_wrong_hash_is_tried_again_and_then_named(hub, truth, tmp_path):
    hub.fault("wrong", f"{commit_of(hub, 2)}/model.safetensors")
    get(hub, 2, tmp_path / "2")
    assert_holds(tmp_path / "2", truth[0][2])
    hub.fault("wrong", f"{commit_of(hub, 4)}/config.json", times=9)
    with pytest.raises(PhasegraphError, match=rf"config\.json of {REPO} at commit {commit_of(hub, 4)} .* twice"):
        get(hub, 4, tmp_path / "4")
    assert not (tmp_path / "4").exists()
    assert len(hub.asked(f"{commit_of(hub, 4)}/config.json")) == 2


def test_a_damaged_part_is_not_taken_for_the_beginning(hub, truth, tmp_path):
    folder = tmp_path / ".downloads" / commit_of(hub, 8)
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(b"x" * 100)
    get(hub, 8, tmp_path / "8")
    assert_holds(tmp_path / "8", truth[0][8])
    assert [request.range for request in hub.asked(f"{commit_of(hub, 8)}/model.safetensors")][::2] == [
        "bytes=100-",
        None,
    ]


@pytest.mark.parametrize("where", ["/refs", "/tree/", "/resolve/"])
def test_a_busy_server_is_waited_for(where, hub, truth, tmp_path, monkeypatch):
    waits = []
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (waits.append(seconds), sleep(min(seconds, 0.01))))
    hub.fault(429, where, headers={"Retry-After": "7"})
    hub.fault(503, where, times=2)
    (pin,) = resolve(REPO, steps=[16], endpoint=hub.url)
    fetch(REPO, pin.commit, tmp_path / "16", endpoint=hub.url)
    assert_holds(tmp_path / "16", truth[0][16])
    waited = [wait for wait in waits if wait >= 1]
    assert len(waited) == 3
    assert 7 <= waited[0] <= 8  # the client of the hub adds a second
    assert waited[1] < waited[2]


def test_a_server_that_stays_down_is_named(hub, tmp_path, monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    hub.fault(503, "/resolve/", times=99)
    with pytest.raises(PhasegraphError, match=r"answered 503 for lab/pythia-tiny, again and again"):
        get(hub, 16, tmp_path / "16")
    with pytest.raises(PhasegraphError, match=r"http://127\.0\.0\.1:1 cannot be reached .* check the network"):
        resolve(REPO, endpoint="http://127.0.0.1:1")
    assert not (tmp_path / "16").exists()


# ---- mistakes and what repositories lack


def test_a_wrong_repository_a_private_and_a_gated_one_are_told_apart(hub, truth, tmp_path):
    files = truth[1][CLEAN]
    secret = hub.repo("lab/secret", token="hf_right")
    secret.push("step0", files)
    gated = hub.repo("lab/gated", gated=True).push("step0", files)

    def failure(*arguments, **environment):
        code, errors = run(hub, *arguments, "--out", tmp_path / "out", **environment)
        assert code == 1
        assert not (tmp_path / "out").exists()
        assert errors[-1].startswith("phasegraph: error: ")
        return errors[-1]

    wrong = failure("resolve", "--repo", "lab/pythai-tiny")
    assert "has no repository lab/pythai-tiny, or it is private: check its name, or set HF_TOKEN" in wrong
    assert "has no repository lab/secret, or it is private" in failure("resolve", "--repo", "lab/secret")
    assert "does not accept the token" in failure("resolve", "--repo", "lab/secret", HF_TOKEN="mistyped")
    assert "may not see it" in failure("resolve", "--repo", "lab/secret", HF_TOKEN="hf_other")
    gate = failure("fetch", "--repo", "lab/gated", "--commit", gated)
    assert f"lab/gated is gated: accept its conditions on {hub.url}/lab/gated" in gate
    assert "'lab/a/b' is not the name of a repository" in failure("resolve", "--repo", "lab/a/b")
    assert "no revision of lab/pythia-tiny matches" in failure("resolve", "--repo", REPO, "--revisions", "stepp{step}")

    arguments = ("--repo", "lab/secret", "--commit", secret.branches["step0"], "--out", tmp_path / "out")
    assert run(hub, "fetch", *arguments, HF_TOKEN="hf_right")[0] == 0
    assert_holds(tmp_path / "out", truth[0][CLEAN])
    digest = files["model.safetensors"].sha256
    stored = hub.asked(f"/{digest}/")
    assert stored
    assert all(request.token is None for request in stored)  # another host never sees the token


def test_a_revision_that_is_gone_is_named(hub, tmp_path):
    with pytest.raises(CheckpointFault, match="has no such commit; resolve the series again") as gone:
        fetch(REPO, "0" * 40, tmp_path / "0", endpoint=hub.url)
    with pytest.raises(PhasegraphError, match="'step0' is not a full commit") as typo:
        fetch(REPO, "step0", tmp_path / "0", endpoint=hub.url)
    hub.fault(404, "/model.safetensors")
    with pytest.raises(CheckpointFault, match=r"its listing names model\.safetensors, which .* not have") as lost:
        get(hub, 0, tmp_path / "0")
    hub.fault(404, "/tree/")  # as from an address that is no hub's
    with pytest.raises(PhasegraphError, match="has no repository") as wrong:
        get(hub, 1, tmp_path / "0")
    assert [gone.value.kind, lost.value.kind] == ["missing", "missing"]
    assert not isinstance(typo.value, CheckpointFault)
    assert not isinstance(wrong.value, CheckpointFault)
    assert not (tmp_path / "0").exists()


class Trap:
    """Loading this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def repository_lacks(truth, fault, tmp_path):
    """Give the files of a revision that has this fault."""
    files = dict(truth[1][SHARDS])
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    if fault == "shard":
        del files[shards[1]]
    elif fault == "tensor":
        part = safetensors.torch.load(files[shards[0]].parts[0])
        files[shards[0]] = Content(safetensors.torch.save({name: part[name] for name in list(part)[1:]}))
    elif fault == "twice":
        files[shards[0]] = Content(safetensors.torch.save(truth[0][SHARDS]))
    elif fault == "index":
        files["model.safetensors.index.json"] = b"[]"
    elif fault == "weights":
        files = {"config.json": b"{}", "tokenizer.json": b"{}"}
    elif fault == "config":
        del files["config.json"]
    elif fault == "truncated":
        whole = truth[1][CLEAN]["model.safetensors"].parts[0]
        files = {"config.json": b"{}", "model.safetensors": Content(whole[:-100])}
    elif fault == "buffers":
        mask = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4).bool()}
        files = {"config.json": b"{}", "model.safetensors": Content(safetensors.torch.save(mask))}
    elif fault == "json":
        files = dict(truth[1][CLEAN]) | {"config.json": b"<html>"}
    else:
        objects = {
            "trap": {"w": torch.ones(2), "x": Trap(tmp_path / "sprung")},
            "nested": {"model": {"w": torch.ones(2)}},
        }
        files = {"config.json": b"{}", "pytorch_model.bin": pickled(objects[fault], tmp_path / "x.bin")}
    return files


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("shard", "unreadable", "lacks the shards model-00002-of-00003.safetensors"),
        ("tensor", "unreadable", "the shards lack .*, which the index lists"),
        ("twice", "unreadable", "in two of its shards"),
        ("index", "unreadable", r"model\.safetensors\.index\.json is not an index"),
        (
            "weights",
            "missing",
            r"has no model\.safetensors or pytorch_model\.bin.*there is config\.json, tokenizer\.json",
        ),
        ("config", "missing", r"has no config\.json"),
        ("truncated", "unreadable", ": model.safetensors is not a whole safetensors file"),
        ("json", "unreadable", r"its config\.json is not a JSON object"),
        ("trap", "unreadable", "was not loaded, because loading could run code"),
        ("nested", "unreadable", "is not a dictionary of tensors"),
        ("buffers", "unreadable", r"model\.safetensors holds no weights"),
    ],
)
def test_what_a_revision_lacks_is_named(fault, kind, message, hub, truth, tmp_path):
    commit = hub.repo("lab/faulty").push("step0", repository_lacks(truth, fault, tmp_path))
    with pytest.raises(CheckpointFault, match=message) as error:
        fetch("lab/faulty", commit, tmp_path / "out", endpoint=hub.url)
    assert error.value.kind == kind
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"lab/faulty at {commit}")
    assert str(tmp_path) not in str(error.value)
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob(".downloads/*/*"))
    assert not (tmp_path / "sprung").exists()


def test_faults_are_marked_only_where_that_is_asked_for(hub, truth, tmp_path):
    repo = hub.repo("lab/faulty")
    repo.push("step0", truth[1][CLEAN])
    commit = repo.push("step5", repository_lacks(truth, "truncated", tmp_path))
    pins, out = tmp_path / "pins.tsv", tmp_path / "out"
    arguments = ("--repo", "lab/faulty", "--steps", "0,5,7", "--allow-missing", "--out", pins)
    assert run(hub, "resolve", *arguments)[0] == 0
    fetched = ("fetch", "--pins", pins, "--out", out)
    for step, kind, names in (
        (5, "unreadable", f"lab/faulty at {commit}"),
        (7, "missing", "no revision in lab/faulty"),
    ):
        code, errors = run(hub, *fetched, "--step", step)
        assert code == 1
        assert names in errors[-1]
        assert not out.exists()
        code, errors = run(hub, *fetched, "--step", step, "--mark-faults")
        assert code == 0
        assert errors[-1].startswith(f"step {step} is {kind}, marked in {out}: ")
        assert names in errors[-1]
        fault = read_fault(out)
        assert fault.kind == kind
        assert str(fault) in errors[-1]
        assert (out / "model.safetensors").stat().st_size == 0
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    assert run(hub, *fetched, "--step", 5, "--mark-faults")[0] == 0
    assert run(hub, *fetched, "--step", 0, "--mark-faults")[0] == 0  # what is good takes the marker's place
    assert_holds(out, truth[0][CLEAN])
    assert read_fault(out) is None


@pytest.mark.parametrize("trouble", ["network", "hash", "rights", "offline", "repository"])
def test_what_may_pass_is_never_marked(trouble, hub, tmp_path):
    repo, environment = REPO, {}
    if trouble == "network":
        environment = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    elif trouble == "hash":
        hub.fault("wrong", "model.safetensors", times=9)
    elif trouble == "rights":
        hub.fault(403, "/resolve/", times=9)
    elif trouble == "offline":
        environment = {"HF_HUB_OFFLINE": "1"}
    else:
        repo = "lab/pythai-tiny"
    arguments = ("--repo", repo, "--commit", commit_of(hub, 0), "--out", tmp_path / "out", "--mark-faults")
    code, errors = run(hub, "fetch", *arguments, **environment)
    assert code == 1
    assert errors[-1].startswith("phasegraph: error: ")
    assert not (tmp_path / "out").exists()


def test_what_the_cache_alone_does_not_show_is_no_fault(hub, tmp_path):
    """Offline, a cache that another program filled with the configuration alone says nothing about the weights."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "config.json", revision="step0", endpoint=hub.url, cache_dir=tmp_path / "hf" / "hub")
    arguments = ("--repo", REPO, "--commit", commit_of(hub, 0), "--out", tmp_path / "out", "--mark-faults")
    code, errors = run(hub, "fetch", *arguments, HF_HUB_OFFLINE="1")
    assert code == 1
    assert "unset HF_HUB_OFFLINE to look further" in errors[-1]
    assert not (tmp_path / "out").exists()
    assert run(hub, "fetch", *arguments)[0] == 0  # the listing of then is not taken for all there is


# ---- the tokenizer


def test_the_tokenizer_comes_once_from_the_first_commit_that_has_one(hub, tmp_path):
    repo = hub.repo("lab/words")
    files = {"tokenizer.json": Content(b'{"model": {}}'), "special_tokens_map.json": b"{}", "config.json": b"{}"}
    settings = {"tokenizer_config.json": b"{}", "config.json": b"{}"}  # not enough for a tokenizer
    commits = [repo.push("step0", settings), repo.push("step1", files | {"run.py": b"raise SystemExit"})]
    commits.append(repo.push("step2", {"tokenizer.json": b"another"}))
    assert run(hub, "resolve", "--repo", "lab/words", "--out", tmp_path / "pins.tsv")[0] == 0
    out = tmp_path / "tokenizer"
    arguments = ("tokenizer", "--pins", tmp_path / "pins.tsv", "--out", out)
    hub.fault("wrong", "tokenizer.json")
    assert run(hub, *arguments)[0] == 0
    names = ["special_tokens_map.json", "tokenizer.json"]
    assert sorted(path.name for path in out.iterdir()) == ["source.json", *names]
    assert (out / "tokenizer.json").read_bytes() == b'{"model": {}}'
    source = json.loads((out / "source.json").read_text())
    assert (source["repo"], source["commit"]) == ("lab/words", commits[1])
    assert source["files"] == {name: sha256(out / name) for name in names}
    asked, before = len(hub.requests), {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(hub, *arguments, HF_HUB_OFFLINE="1")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert len(hub.requests) == asked
    (out / "tokenizer.json").write_bytes(b"damaged")
    assert fetch_tokenizer("lab/words", commits, out, endpoint=hub.url) == source
    assert (out / "tokenizer.json").read_bytes() == b'{"model": {}}'
    assert not list(tmp_path.glob(".downloads/*/*"))


def test_a_series_without_a_tokenizer_is_no_error(hub, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vocab.json").write_text("of another series")
    commits = [commit_of(hub, step) for step in STEPS[:3]]
    source = fetch_tokenizer(REPO, ["0" * 40, *commits], tmp_path / "out", endpoint=hub.url)
    assert source == {"repo": REPO, "commit": "", "files": {}}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]
    assert json.loads((tmp_path / "out" / "source.json").read_text()) == source
    assert f"{REPO} has no tokenizer in any commit" in caplog.text


def test_a_full_disk_is_named(hub, truth, tmp_path):
    folder = tmp_path / ".downloads" / commit_of(hub, 0)
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(PhasegraphError, match=r"no space left for .*; free some"):
        get(hub, 0, tmp_path / "0")
    assert not (tmp_path / "0").exists()
    hub.fault("huge", commit_of(hub, 1), times=9, at=10**17)
    with pytest.raises(PhasegraphError, match=r"needs 100,000,000,\d+ MB on the disk of .*which has .* MB left"):
        get(hub, 1, tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_two_at_once_share_one_download(hub, truth, tmp_path):
    arguments = (
        "fetch",
        "--repo",
        REPO,
        "--commit",
        commit_of(hub, 0),
        "--keep",
        "--downloads",
        tmp_path / "d",
        "--out",
    )
    processes = [command(hub, *arguments, tmp_path / name) for name in ("a", "b")]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert_holds(tmp_path / "a", truth[0][0])
    assert_holds(tmp_path / "b", truth[0][0])
    assert len(hub.asked(f"{commit_of(hub, 0)}/model.safetensors")) == 2  # the redirect and the file


def test_progress_is_logged_without_addresses(hub, tmp_path):
    _, errors = run(hub, "fetch", "--repo", REPO, "--commit", commit_of(hub, 1), "--out", tmp_path / "1")
    assert any("model.safetensors" in line and "MB" in line for line in errors)
    assert errors[-1].startswith(f"wrote {tmp_path / '1'}")
    assert not any("http" in line for line in errors)
    assert logging.getLogger("phasegraph").level == logging.NOTSET


# ---- how large the models are


def planned(hub, home):
    """The size that a plan of all steps gives, planned as the Snakefile does."""
    program = (
        "from phasegraph.series.plan import plan_of;"
        f"print(plan_of('mine', {{'source': 'hub', 'repo': {REPO!r}, 'flagged': 'exclude'}}, {str(home)!r}).size)"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_the_size_of_a_series_is_asked_once_of_the_first_commit_that_says_it(hub, truth, tmp_path):
    hub.repos[REPO].push("step0", {"README.md": b"nothing here"})
    size = planned(hub, tmp_path)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**json.loads(truth[1][1]["config.json"])))
    assert f"parameters={sum(p.numel() for p in model.parameters())}," in size
    asked = len(hub.requests)
    assert planned(hub, tmp_path) == size
    assert len(hub.requests) == asked
    get(hub, 1, tmp_path / "1", downloads=tmp_path / "downloads")
    assert len(hub.asked("config.json")) == 1  # what was fetched for the plan serves the checkpoint
    assert not list((tmp_path / "downloads").glob("*/*"))


def test_the_size_of_a_series_that_says_it_nowhere_is_unknown_and_not_asked_again(hub, tmp_path):
    for branch in [name for name in hub.repos[REPO].branches if name.startswith("step")]:
        hub.repos[REPO].push(branch, {"README.md": b"nothing here"})
    assert planned(hub, tmp_path) == "None"
    asked = len(hub.requests)
    assert planned(hub, tmp_path) == "None"
    assert len(hub.requests) == asked
