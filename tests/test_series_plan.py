"""What the configuration of a series means, and checkpoints in a folder told apart by content (2 s)."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from phasegraph.errors import PhasegraphError
from phasegraph.series.directory import contents_of, find_checkpoints
from phasegraph.series.fault import CheckpointFault, read_fault, write_fault
from phasegraph.series.layout import files_of, step_and_folder
from phasegraph.series.manifest import write_manifest
from phasegraph.series.pins import Pin, read_pins, write_pins
from phasegraph.series.plan import plan_of
from phasegraph.series.table import Audited, Flag
from phasegraph.series.used import used_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}


def checkpoint(folder, *, step=None, weights=b"weights", name="model.safetensors"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(weights)
    if step is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


# --- finding ---------------------------------------------------------------------------------------------------------


def test_a_trainers_folders_are_sorted_by_the_number_of_the_step_that_their_state_names(tmp_path):
    for name, step in (("checkpoint-500", 500), ("checkpoint-1000", 1000), ("checkpoint-99", 100)):
        checkpoint(tmp_path / name, step=step)
    (tmp_path / "runs").mkdir()
    (tmp_path / "checkpoint-3.txt").write_text("no folder")
    found = find_checkpoints(tmp_path)
    assert list(found) == [100, 500, 1000]
    assert found[100] == tmp_path / "checkpoint-99"


@pytest.mark.parametrize("state", [None, "", "{", "[]", '{"global_step": "7"}', '{"global_step": -1}', "{}"])
def test_without_a_usable_state_the_name_tells_the_step(state, tmp_path):
    folder = checkpoint(tmp_path / "checkpoint-20")
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    assert find_checkpoints(tmp_path) == {20: folder}


def test_with_a_pattern_the_name_decides(tmp_path):
    one = checkpoint(tmp_path / "ckpt_010", step=99)
    assert find_checkpoints(tmp_path, "ckpt_{step}") == {10: one}
    assert find_checkpoints(tmp_path, "ckpt_{index}", steps_per_index=50) == {500: one}


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (["step5", "step05"], "step{step}", "step 5 has two folders"),
        (["step5", "other"], "ckpt{step}", "is named like ckpt{step}; there is other, step5"),
        ([], None, "there is none at all"),
        (["step5"], "step{stepp}", "{stepp} is not a field"),
        (["step5"], "step", "must have either {step} or {index}"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(names, pattern, message, tmp_path):
    for name in names:
        checkpoint(tmp_path / name)
    with pytest.raises(PhasegraphError) as caught:
        find_checkpoints(tmp_path, pattern)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_folders_of_one_step_are_named(tmp_path):
    checkpoint(tmp_path / "checkpoint-500", step=500)
    checkpoint(tmp_path / "checkpoint-500-copy")  # not named like one
    checkpoint(tmp_path / "checkpoint-600", step=500)
    with pytest.raises(PhasegraphError, match=r"step 500 has two folders, .*checkpoint-500 and .*checkpoint-600"):
        find_checkpoints(tmp_path)


# --- content ---------------------------------------------------------------------------------------------------------


def test_the_files_of_a_model_are_those_that_transformers_would_read(tmp_path):
    whole = checkpoint(tmp_path / "whole")
    (whole / "pytorch_model.bin").write_bytes(b"old")
    (whole / "optimizer.pt").write_bytes(b"large")
    assert [path.name for path in files_of(whole)] == ["config.json", "model.safetensors"]
    pieces = checkpoint(tmp_path / "pieces", name="model-1.safetensors")
    (pieces / "model.safetensors.index.json").write_text(json.dumps(SHARDS))
    names = ["config.json", "model.safetensors.index.json", "model-1.safetensors"]
    assert [path.name for path in files_of(pieces)] == names  # the second shard is not there yet
    (pieces / "model.safetensors.index.json").write_text("{")
    assert [path.name for path in files_of(pieces)] == names[:2]
    assert files_of(tmp_path / "nowhere") == []


def test_content_decides_and_not_time_or_place(tmp_path):
    one = checkpoint(tmp_path / "a" / "checkpoint-1", weights=b"one")
    other = checkpoint(tmp_path / "a" / "checkpoint-2", weights=b"two")
    memory = tmp_path / "memory.json"
    first = contents_of({1: one, 2: other}, memory)
    assert len(set(first.values())) == 2
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    copied = {1: tmp_path / "b" / "checkpoint-1", 2: tmp_path / "b" / "checkpoint-2"}
    assert contents_of(copied, None) == first
    (one / "model.safetensors").touch()
    (one / "optimizer.pt").write_bytes(b"anything")
    assert contents_of({1: one, 2: other}, memory) == first
    stat = (other / "model.safetensors").stat()
    (other / "model.safetensors").write_bytes(b"TWO")
    os.utime(other / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = contents_of({1: one, 2: other}, memory)
    assert changed[1] == first[1] and changed[2] != first[2]


def test_what_was_read_is_not_read_again_and_a_damaged_memory_is(tmp_path):
    one, memory = checkpoint(tmp_path / "checkpoint-1"), tmp_path / "memory.json"
    first = contents_of({1: one}, memory)
    noted = json.loads(memory.read_text())
    weights = str(one / "model.safetensors")
    noted[weights][1] = "0" * 64  # believed, since size and times are those that were noted
    memory.write_text(json.dumps(noted))
    believed = contents_of({1: one}, memory)
    assert believed != first
    memory.write_text('{"half')
    assert contents_of({1: one}, memory) == first


def test_a_checkpoint_without_files_has_no_content(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    assert contents_of({1: tmp_path / "checkpoint-1", 2: tmp_path / "checkpoint-2"}, None) == {1: "", 2: ""}


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_directory_is_planned_in_place_with_what_is_missing(tmp_path):
    for step in (500, 1000):
        checkpoint(tmp_path / "runs" / f"checkpoint-{step}", step=step)
    series = {"source": "directory", "path": str(tmp_path / "runs"), "steps": [1000, 500, 750], "flagged": "exclude"}
    plan = plan_of("mine", series, tmp_path / "home")
    assert plan.steps == [500, 750, 1000]
    assert plan.folders[750] == tmp_path / "runs" / "checkpoint-750"
    assert plan.contents[750] == "" != plan.contents[500]
    assert plan.files[750] == []
    assert [path.rpartition("/")[2] for path in plan.files[500]] == ["config.json", "model.safetensors"]
    assert plan_of("mine", series | {"steps": "all"}, tmp_path / "home").steps == [500, 1000]


def test_what_is_pinned_needs_no_hub_and_stays_pinned_when_steps_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    known = [Pin(step, "lab/model", f"step{step}", COMMIT, step * 48) for step in (0, 4, 8)]
    known.append(Pin(12, "lab/model", "", ""))
    write_pins(known, tmp_path / "pins.tsv")
    series = {"source": "hub", "repo": "lab/model", "steps": [0, 8, 12], "flagged": "exclude"}
    plan = plan_of("mine", series, tmp_path)
    assert plan.contents == {0: COMMIT, 8: COMMIT, 12: ""}
    assert plan.folders[8] == tmp_path / "checkpoints" / "8"
    assert read_pins(tmp_path / "pins.tsv") == known
    assert plan_of("mine", series | {"steps": "all"}, tmp_path).steps == [0, 4, 8, 12]


def test_the_plan_of_what_is_pinned_imports_neither_a_client_nor_arrays(tmp_path):
    write_pins([Pin(0, "lab/model", "step0", COMMIT)], tmp_path / "pins.tsv")
    program = (
        "import sys; from phasegraph.series.plan import plan_of;"
        f"plan_of('mine', {{'source': 'hub', 'repo': 'lab/model', 'flagged': 'exclude'}}, {str(tmp_path)!r});"
        "print(sorted({'numpy', 'torch', 'huggingface_hub', 'safetensors', 'polars'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- what is left out -----------------------------------------------------------------------------------------------


def test_a_fault_stands_where_no_checkpoint_is_and_is_read_back(tmp_path):
    write_fault(tmp_path / "4", CheckpointFault("missing", "there is no such revision"))
    fault = read_fault(tmp_path / "4")
    assert (fault.kind, str(fault)) == ("missing", "there is no such revision")
    assert (tmp_path / "4" / "model.safetensors").read_bytes() == b""
    assert read_fault(checkpoint(tmp_path / "8")) is None
    assert read_fault(tmp_path / "nowhere") is None


def test_results_of_what_is_left_out_are_not_read(tmp_path):
    rows = [Audited(0, "0", used=True), Audited(4, "4", flags=[Flag("duplicate", "duplicate of step 0", 0)])]
    manifest = tmp_path / "series.tsv"
    write_manifest([*rows, Audited(8, "8", used=True)], manifest)
    files = [tmp_path / f"{step}.npy" for step in (8, 4, 0)]
    for file in files:
        file.write_bytes(b"x")
    assert used_files(files, manifest) == [files[2], files[0]]
    files[0].write_bytes(b"")
    with pytest.raises(PhasegraphError, match=r"8\.npy is empty: step 8 could not be measured"):
        used_files(files, manifest)
    assert used_files(files[1:], manifest) == [files[2]]  # a study may look at fewer checkpoints than there are
    with pytest.raises(PhasegraphError, match="counts none of these 1 checkpoints; correct the study's steps"):
        used_files(files[1:2], manifest)
    with pytest.raises(PhasegraphError, match=r"9\.npy: .*series\.tsv does not list step 9"):
        used_files([*files[1:], tmp_path / "9.npy"], manifest)
    with pytest.raises(PhasegraphError, match="the same step as"):
        used_files([*files, tmp_path / "other" / "0.npy"], manifest)


def test_a_checkpoint_on_a_command_line_is_a_step_and_a_folder():
    assert step_and_folder("500=") == (500, None)
    step, folder = step_and_folder("500=runs/lr=3e-4/checkpoint-500")
    assert (step, folder.as_posix()) == (500, "runs/lr=3e-4/checkpoint-500")
    for wrong in ("500", "x=runs", "=runs"):
        with pytest.raises(PhasegraphError, match="must be given as STEP=FOLDER"):
            step_and_folder(wrong)
