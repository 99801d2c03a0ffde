"""Training, storing and listing a series. About 50 s of one core: 8 s importing torch, 9 s in a process that is killed
again and again, 20 s for the run whose phase change is checked."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from phasegraph.errors import PhasegraphError
from phasegraph.files import sha256
from phasegraph.series import batches
from phasegraph.series.__main__ import main
from phasegraph.series.audit import audit
from phasegraph.series.manifest import read_manifest, write_manifest
from phasegraph.series.recipe import Recipe
from phasegraph.series.steps import expand_steps
from phasegraph.series.store import Store, alone
from phasegraph.series.table import left_out, used_steps
from phasegraph.series.training import plan, train
from phasegraph.series.weights import content_digest

TINY_KEYS = dict(layers=1, d_model=32, d_mlp=64, steps=40, warmup=4, batch=8, length=16, period_max=7)
TINY = Recipe(**TINY_KEYS)
STEPS = [0, 1, 5, 10, 20, 33, 40]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tiny run, trained once without interruption: its folder, and the table of its steps."""
    place = tmp_path_factory.mktemp("undisturbed")
    return train(TINY, STEPS, place / "store", log=place / "training.tsv", state_every=10), place / "training.tsv"


def contents(folder):
    return {path.parent.name: sha256(path) for path in folder.glob("[0-9]*/model.safetensors")}


def times(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("[0-9]*/*")}


def updates(caplog):
    """Updates that the last run announced."""
    announced = [record for record in caplog.records if record.msg.startswith("training %s")]
    return announced[-1].args[1] if announced else 0


# ---- which steps


def test_steps_of_the_default_series():
    steps = expand_steps({"start": 4, "stop": 572, "every": 4, "also": [0, 1, 2]})
    assert len(steps) == 146
    assert steps[:4] == [0, 1, 2, 4]
    assert steps[-1] == 572
    assert expand_steps([5, 3, 5]) == [3, 5]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"start": 1, "stop": 2, "every": 1, "step": 3}, "series.demo.steps.step"),
        ({"start": 1, "stop": 2}, "series.demo.steps.every"),
        ({"start": 1, "stop": 2, "every": 0}, "series.demo.steps.every"),
        ({"start": 3, "stop": 2, "every": 1}, "series.demo.steps.stop"),
        ({"start": 1, "stop": 2, "every": 1, "also": "7"}, "series.demo.steps.also"),
        ({"start": True, "stop": 2, "every": 1}, "series.demo.steps.start"),
        ([1, -1], "series.demo.steps"),
        ([1, "2"], "series.demo.steps"),
        ([], "series.demo.steps"),
        (7, "series.demo.steps"),
    ],
)
def test_a_wrong_schedule_is_named(spec, named):
    with pytest.raises(PhasegraphError, match=named.replace(".", r"\.")):
        expand_steps(spec, "series.demo.steps")


def test_the_plan_makes_no_update_twice_and_none_in_vain():
    rng = np.random.default_rng(0)
    for _ in range(200):
        targets = set(rng.integers(0, 60, size=rng.integers(1, 8)).tolist())
        states = set(rng.integers(1, 60, size=rng.integers(0, 5)).tolist())
        segments = plan(targets, states)
        made = [step for start, stop in segments for step in range(start + 1, stop + 1)]
        needed = {
            step for step in range(1, 60) if any(t >= step and not states & set(range(step, t + 1)) for t in targets)
        }
        assert sorted(made) == sorted(needed)
        assert all(any(start <= target <= stop for start, stop in segments) for target in targets)
        assert all(start in states | {0} for start, _ in segments)


# ---- the recipe


def test_the_digest_depends_on_all_that_decides_the_weights_and_on_nothing_else():
    digests = [Recipe().digest(), Recipe(seed=1).digest(), Recipe(steps=573).digest(), Recipe().digest("edited")]
    assert len(set(digests)) == 4
    assert Recipe.from_dict({"clip": 1}).digest() == Recipe(clip=1.0).digest() == Recipe().digest()


def test_parameters_are_those_of_the_model(undisturbed):
    folder, _ = undisturbed
    tensors = safetensors.numpy.load_file(folder / "0" / "model.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == TINY.parameters
    assert Recipe().parameters == 1_206_272  # Pythia-14m's blocks, 64 tokens


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"layer": 2}, "layer is not known"),
        ({"layers": "six"}, "layers must be a whole number"),
        ({"layers": True}, "layers must be a whole number"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"repeat_share": 1.5}, "repeat_share must lie between 0 and 1"),
        ({"repeat_share": 0.3}, "repeat_share of batch"),
        ({"heads": 3}, "d_model must be a multiple of heads"),
        ({"d_model": 48}, "rotary"),
        ({"period_max": 16}, "period_max must fit twice"),
        ({"period_min": 16}, "period_min"),
        ({"steps": 30}, "warmup"),
        ([], "a mapping"),
    ],
)
def test_a_wrong_recipe_is_named(values, named):
    with pytest.raises(PhasegraphError, match=named):
        Recipe.from_dict(values)


# ---- the data


def test_a_batch_depends_on_seed_and_step_alone():
    first = batches.batch(Recipe(), 7)
    batches.batch(Recipe(), 8)
    np.testing.assert_array_equal(batches.batch(Recipe(steps=900), 7), first)
    assert not np.array_equal(batches.batch(Recipe(), 8), first)
    assert not np.array_equal(batches.batch(Recipe(seed=1), 7), first)


def test_three_quarters_of_a_batch_are_repeats_of_every_period():
    recipe, periods = Recipe(), set()
    for step in range(1, 21):
        tokens = batches.batch(recipe, step)
        assert tokens.shape == (32, 32)
        assert (tokens[:, 0] == 0).all()
        assert tokens[:, 1:].min() >= 1
        assert tokens.max() <= 63
        found = [[p for p in range(4, 16) if np.array_equal(row[1 + p :], row[1:-p])] for row in tokens]
        assert all(found[:24])
        assert not any(found[24:])
        periods |= {row[0] for row in found[:24]}
    assert periods == set(range(4, 16))


def entropy(counts):
    share = counts[counts > 0] / counts.sum()
    return -(share * np.log(share)).sum()


def test_empirical_entropies_of_the_chain_are_the_analytic_ones():
    language = batches.chain(1234, 64)
    analytic = batches.entropies(language)
    tokens = batches.background(np.random.default_rng(0), language, 20_000, 31)  # [sequences, length]
    classes = (tokens - 1) % 8
    words = np.bincount(tokens.ravel(), minlength=64)
    pairs = np.bincount((tokens[:, :-1] * 64 + tokens[:, 1:]).ravel(), minlength=64**2).reshape(64, 64)
    assert abs(entropy(words) - analytic.unigram) < 0.01
    assert abs(entropy(pairs) - entropy(pairs.sum(1)) - analytic.bigram) < 0.01
    # Token triples are too many to count; a word depends on the past through its class alone.
    triples = np.bincount((classes[:, :-2] * 64 + classes[:, 1:-1] * 8 + classes[:, 2:]).ravel(), minlength=512)
    inside = entropy(words) - entropy(np.bincount(classes.ravel()))
    assert abs(entropy(triples) - entropy(triples.reshape(64, 8).sum(1)) + inside - analytic.trigram) < 0.01
    # The sequences start in the long run's distribution, so the first word is as any other.
    assert abs(entropy(np.bincount(tokens[:, 0])) - analytic.unigram) < 0.02


# ---- training and storing


def test_a_folder_loads_offline_and_computes_what_the_trained_model_did(undisturbed, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM

    from phasegraph.series.optimiser import Learner, reproducible

    folder, _ = undisturbed
    tokens = torch.from_numpy(batches.batch(TINY, 99))
    with reproducible(TINY), torch.no_grad():
        learner = Learner(TINY)
        with torch.enable_grad():
            for _ in range(33):
                learner.update()
        loaded, report = AutoModelForCausalLM.from_pretrained(folder / "33", output_loading_info=True)
        assert not any(report.values())
        torch.testing.assert_close(loaded(tokens).logits, learner.model(tokens).logits, rtol=0, atol=0)
    assert loaded.dtype == torch.float32


def test_the_weights_file_is_the_one_that_transformers_writes(undisturbed, tmp_path):
    from transformers import AutoModelForCausalLM

    folder, _ = undisturbed
    AutoModelForCausalLM.from_pretrained(folder / "40").save_pretrained(tmp_path)
    assert sha256(tmp_path / "model.safetensors") == sha256(folder / "40" / "model.safetensors")
    config = json.loads((folder / "40" / "config.json").read_text())
    assert json.loads((tmp_path / "config.json").read_text()).items() <= config.items()
    assert config["rotary_pct"] == 0.25
    assert config["bos_token_id"] == 0
    assert (folder / "40" / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    now = os.umask(0)
    os.umask(now)
    return now


KILLER = """
import os, pathlib, random, signal, sys
import phasegraph.series.optimiser
from phasegraph.series.__main__ import main

draw, kills, rename = random.Random(0), 0, pathlib.Path.replace
while True:
    left = draw.randint(2, 14)
    child = os.fork()
    if child == 0:
        def replace(path, target):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)
        pathlib.Path.replace = replace
        main(sys.argv[1:])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        break
    kills += 1
print(kills)
sys.exit(status)
"""


def test_killed_again_and_again_it_gives_the_bytes_of_an_undisturbed_run(undisturbed, tmp_path):
    """Each process is killed before one of its next 14 renames, with a half-made file on the disk."""
    folder, table = undisturbed
    steps = ",".join(map(str, STEPS))
    arguments = [
        "--recipe",
        json.dumps(TINY_KEYS),
        "--steps",
        steps,
        "--store",
        tmp_path / "store",
        "--state-every",
        "10",
    ]
    command = [sys.executable, "-c", KILLER, "train", *map(str, arguments), "--log", str(tmp_path / "training.tsv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    again = tmp_path / "store" / folder.name
    assert contents(again) == contents(folder)
    assert len(contents(again)) == len(STEPS)
    assert (tmp_path / "training.tsv").read_bytes() == table.read_bytes()
    assert not list(again.rglob(".*.tmp*"))


def test_another_schedule_trains_only_what_is_missing(undisturbed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole, table = undisturbed
    folder = train(TINY, [0, 20], tmp_path / "store", log=tmp_path / "training.tsv", state_every=10)
    assert (tmp_path / "training.tsv").read_text().splitlines() == table.read_text().splitlines()[:21]
    before = times(folder)

    train(TINY, [0, 10, 17, 20, 33], tmp_path / "store", log=tmp_path / "training.tsv", state_every=10)
    assert updates(caplog) == 7 + 13  # 10 -> 17 and 20 -> 33; step 10 itself is in its state
    assert before.items() <= times(folder).items()
    expected = contents(whole)
    found = contents(folder)
    assert found.keys() == {"0", "10", "17", "20", "33"}
    assert all(found[step] == expected[step] for step in found.keys() & expected.keys())
    assert (tmp_path / "training.tsv").read_text().splitlines() == table.read_text().splitlines()[:34]

    before = times(folder)
    caplog.clear()
    train(TINY, [17, 33], tmp_path / "store", log=tmp_path / "training.tsv", state_every=10)
    assert updates(caplog) == 0
    assert times(folder) == before


def test_nothing_to_do_imports_neither_torch_nor_numpy(undisturbed, tmp_path):
    folder, table = undisturbed
    arguments = ["--recipe", json.dumps(TINY_KEYS), "--store", str(folder.parent)]
    script = (
        "import sys; from phasegraph.series.__main__ import main\n"
        f"main(['train', *{arguments}, '--steps', '0,33', '--log', {str(tmp_path / 'log')!r}])\n"
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "log").read_bytes() == table.read_bytes()


def test_the_table_of_steps(undisturbed):
    _, table = undisturbed
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert header == ["step", "tokens", "learning_rate", "loss"]
    values = np.array(rows, dtype=float)
    np.testing.assert_array_equal(values[:, 0], np.arange(1, 41))
    np.testing.assert_array_equal(values[:, 1], values[:, 0] * 8 * 16)
    rate = values[:, 2]
    np.testing.assert_allclose(rate[:4], 2e-3 * np.arange(1, 5) / 4)  # linear warm-up
    np.testing.assert_allclose(rate[[21, 39]], [1.1e-3, 2e-4])  # the cosine's middle and end
    assert abs(values[0, 3] - np.log(64)) < 0.1  # an untrained model knows nothing


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_made_again(harm, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    steps = [0, 10, 15, 25]
    folder = train(TINY, steps, tmp_path, state_every=10)
    good, before = contents(folder), times(folder)
    for name in ("15/model.safetensors", "states/20.pt"):
        path = folder / name
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.unlink()
        if harm != "remove":
            path.write_bytes(data if harm == "flip" else data[:-1])
    assert not Store(tmp_path, TINY).holds("15/model.safetensors")
    train(TINY, [*steps, 22], tmp_path, state_every=10)
    assert updates(caplog) == 12  # 10 -> 22, as the state of 20 is of no use
    found = contents(folder)
    assert {step: found[step] for step in good} == good
    assert Store(tmp_path, TINY).states() == [10, 20]
    changed = {str(folder / "15" / name) for name in ("model.safetensors", "config.json")}
    assert {path for path in before if times(folder)[path] != before[path]} == changed


def test_a_touched_file_is_read_and_believed(undisturbed, caplog):
    caplog.set_level(logging.INFO)
    folder, _ = undisturbed
    for step in STEPS:
        os.utime(folder / str(step) / "model.safetensors")
    train(TINY, STEPS, folder.parent, state_every=10)
    assert updates(caplog) == 0


def test_stores_of_other_recipes_are_removed_and_other_folders_are_not(tmp_path):
    old = train(TINY, [0], tmp_path)
    (tmp_path / "0123456789abcdef").mkdir()  # looks like a store, but is somebody else's
    (tmp_path / "notes").mkdir()
    new = train(TINY, [0], tmp_path, code="edited")
    assert new != old
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "0123456789abcdef", "notes", new.name}
    assert contents(new).keys() == {"0"}


def test_two_trainings_do_not_meet_in_one_folder(tmp_path):
    order = []

    def second():
        with alone(tmp_path):
            order.append("second in")

    with alone(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first out")
    thread.join()
    assert order == ["first out", "second in"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--recipe", "{layers: 2}", "--steps", "1", "--log", "LOG"], "--recipe is not JSON"),
        (["train", "--recipe", '{"layer": 2}', "--steps", "1", "--log", "LOG"], "layer is not known"),
        (["train", "--recipe", "{}", "--steps", "1,x", "--log", "LOG"], "--steps must be whole numbers"),
        (["train", "--recipe", "{}", "--steps", "4,573", "--log", "LOG"], "0..572"),
        (["train", "--recipe", "{}", "--steps", "4", "--log", "LOG", "--state-every", "0"], "state_every"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--store", "store"])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_diverging_training_is_named():
    import torch

    from phasegraph.series.optimiser import Learner, reproducible

    with reproducible(TINY):
        learner = Learner(TINY)
        learner.update()
        with torch.no_grad():
            learner.model.gpt_neox.embed_in.weight.fill_(torch.inf)
        with pytest.raises(PhasegraphError, match="diverged at step 2"):
            learner.update()


# ---- the phase change


def test_the_two_layer_run_goes_through_the_induction_phase_change(tmp_path):
    """20 s. The probe is a random sequence repeated: only induction predicts its second half."""
    import torch
    from transformers import AutoModelForCausalLM

    recipe = Recipe(layers=2, steps=432)
    steps = [0, 150, *range(216, 289, 12), 432]
    folder = train(recipe, steps, tmp_path)
    rng = np.random.default_rng(0)
    half = rng.integers(1, 64, size=(64, 15))
    probe = torch.from_numpy(np.hstack([np.zeros((64, 1), dtype=int), half, half]))  # [prompts, 31]
    language = batches.chain(recipe.lang_seed, recipe.vocab)
    held_out = torch.from_numpy(np.pad(batches.background(rng, language, 256, 31), ((0, 0), (1, 0))))

    def losses(step, tokens):
        model = AutoModelForCausalLM.from_pretrained(folder / str(step))
        with torch.no_grad():
            scores = model(tokens).logits[:, :-1].log_softmax(-1)
        return -scores.gather(2, tokens[:, 1:, None])[..., 0].mean(0)  # [positions]

    second = {step: losses(step, probe)[16:].mean().item() for step in steps}
    assert abs(second[0] - np.log(64)) < 0.1
    assert second[150] > 3.5
    assert second[432] < 0.6
    halfway = (second[150] + second[432]) / 2
    crossing = next(step for step in steps if second[step] < halfway)
    assert 228 <= crossing <= 276
    assert losses(432, probe)[:15].mean() > np.log(63)  # random words cannot be known beforehand
    background = losses(432, held_out)[2:].mean().item()
    known = batches.entropies(language)
    assert known.trigram < background < known.unigram


# ---- the manifest


def write_checkpoints(folder, count=3, **special):
    rng = np.random.default_rng(0)
    for number in range(count):
        step = folder / str(number * 12)
        step.mkdir(parents=True)
        tensors = {
            "a": rng.normal(size=(5, 7)).astype(np.float32),
            "b": rng.normal(size=9).astype(np.float16),
            "mask": rng.integers(0, 2, size=4).astype(bool),  # a buffer, not a weight
        }
        safetensors.numpy.save_file(tensors | special, step / "model.safetensors")
        (step / "config.json").write_text("{}")
    return [folder / str(number * 12) for number in range(count)]


def listed(folders, out, **options):
    """The manifest of folders that are named by their steps."""
    write_manifest(audit([(int(folder.name), folder) for folder in folders]), out, **options)
    return read_manifest(out)


def flat(folder):
    """All weights of such a checkpoint."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    return np.concatenate([tensors["a"].ravel(), tensors["b"]], dtype=np.float64)


def test_the_manifest_has_the_distances_of_the_weights(tmp_path):
    folders = write_checkpoints(tmp_path / "checkpoints")
    table = listed(reversed(folders), tmp_path / "series.tsv", tokens_per_step=1024)
    moved = np.linalg.norm(np.diff([flat(folder) for folder in folders], axis=0), axis=1)
    np.testing.assert_array_equal(table["step"], [0, 12, 24])
    np.testing.assert_array_equal(table["tokens"], [0, 12288, 24576])
    np.testing.assert_allclose(table["displacement"], [np.nan, *moved], rtol=1e-12)
    np.testing.assert_allclose(table["arc_length"], [0, moved[0], moved.sum()], rtol=1e-12)
    np.testing.assert_array_equal(table["parameters"], [44, 44, 44])
    assert list(table["path"]) == ["checkpoints/0", "checkpoints/12", "checkpoints/24"]
    assert list(table["sha256"]) == [content_digest(folder) for folder in folders]
    assert list(table["bytes"]) == [(folder / "model.safetensors").stat().st_size for folder in folders]
    assert list(table["dtype"]) == ["float16,float32"] * 3
    assert table["used"].all()


def test_the_manifest_reads_bfloat16_and_leaves_unknown_tokens_empty(tmp_path):
    import torch
    from safetensors.torch import save_file

    values = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    for step, tensor in zip(("8", "9"), values, strict=True):
        (tmp_path / step).mkdir()
        save_file({"w": tensor.clone()}, tmp_path / step / "model.safetensors")
        (tmp_path / step / "config.json").write_text("{}")
    table = listed([tmp_path / "8", tmp_path / "9"], tmp_path / "series.tsv")
    assert np.isclose(table["arc_length"][1], np.linalg.norm(np.subtract(*values.double().numpy())), rtol=1e-12)
    assert np.isnan(table["tokens"]).all()
    assert set(table["dtype"]) == {"bfloat16"}


def test_the_manifest_of_a_trained_series(undisturbed, tmp_path):
    folder, _ = undisturbed
    given = [f"{step}={folder / str(step)}" for step in reversed(STEPS)]
    main(["audit", "--out", str(tmp_path / "series.tsv"), "--json", str(tmp_path / "audit.json"), *given])
    table = read_manifest(tmp_path / "series.tsv")
    np.testing.assert_array_equal(table["step"], STEPS)
    assert (table["displacement"][1:] > 0).all()
    assert set(table["parameters"]) == {TINY.parameters}
    assert used_steps(tmp_path / "series.tsv") == STEPS
    assert all((tmp_path / path / "model.safetensors").is_file() for path in table["path"])


KINDS = {
    "missing": "missing",
    "truncated": "unreadable",
    "garbage": "unreadable",
    "shape": "other architecture",
    "name": "other architecture",
    "nan": "not finite",
}


@pytest.mark.parametrize("harm", KINDS)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_bad_checkpoint_is_named_and_passed_over(harm, victim, tmp_path):
    folders = write_checkpoints(tmp_path / "checkpoints")
    path = folders[victim] / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "garbage":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    else:
        other = {"shape": {"a": np.zeros((7, 5), np.float32)}, "name": {"c": tensors["a"]}}
        safetensors.numpy.save_file(tensors | other.get(harm, {"a": tensors["a"] * np.float32(np.nan)}), path)
    table = listed(folders, tmp_path / "series.tsv")
    good = [folder for folder in folders if folder != folders[victim]]
    moved = np.linalg.norm(flat(good[1]) - flat(good[0]))
    assert used_steps(tmp_path / "series.tsv") == [int(folder.name) for folder in good]
    assert [(step, text.split(":")[0]) for step, text in left_out(tmp_path / "series.tsv").items()] == [
        (victim * 12, KINDS[harm])
    ]
    np.testing.assert_allclose(table["displacement"][table["used"]], [np.nan, moved], rtol=1e-12)
    np.testing.assert_allclose(table["arc_length"][table["used"]], [0, moved], rtol=1e-12)
    assert np.isnan(table["arc_length"][victim])
    assert table["path"][victim] == ("" if harm == "missing" else f"checkpoints/{victim * 12}")


def test_weights_that_do_not_move_are_reported(tmp_path, caplog):
    folders = write_checkpoints(tmp_path / "checkpoints")
    Path(folders[1] / "model.safetensors").write_bytes(Path(folders[0] / "model.safetensors").read_bytes())
    table = listed(folders, tmp_path / "series.tsv")
    assert "checkpoint 12: duplicate of step 0" in caplog.text
    assert table["displacement"][1] == 0
    assert np.isclose(table["displacement"][2], np.linalg.norm(flat(folders[2]) - flat(folders[0])), rtol=1e-12)
