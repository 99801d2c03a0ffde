"""The weights of any format, the rule for a line, the audit of whole series, and what its command writes. About 20 s of
one core, of which 5 s import torch and train a small series."""

import json
import logging
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from phasegraph.errors import PhasegraphError
from phasegraph.series import weights
from phasegraph.series.__main__ import main
from phasegraph.series.audit import audit
from phasegraph.series.convert import is_buffer
from phasegraph.series.fault import CheckpointFault, write_fault
from phasegraph.series.line import out_of_line
from phasegraph.series.manifest import read_manifest
from phasegraph.series.recipe import Recipe
from phasegraph.series.table import KINDS, flags_of, left_out, used_steps
from phasegraph.series.training import train

SMALL = Recipe(layers=2, d_model=32, d_mlp=64, steps=120, warmup=6, batch=8, length=16, period_max=7)
STEPS = [0, 1, 2, 4, 8, *range(12, 121, 6)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small training: the folder of its checkpoints."""
    return train(SMALL, STEPS, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def series(trained, tmp_path):
    """A copy of the small training to do harm to: step -> folder."""
    return {step: Path(shutil.copytree(trained / str(step), tmp_path / f"step{step}")) for step in STEPS}


def flags(rows):
    return {row.step: [flag.kind for flag in row.flags] for row in rows if not row.good}


def rewrite(folder, change):
    """Pass the tensors of a checkpoint through a function."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def serve(series, step, other):
    """Let a step's folder hold another step's file."""
    shutil.copy(series[other] / "model.safetensors", series[step] / "model.safetensors")


# ---- the weights of any format


def model(kind, dtype="float32"):
    import torch
    import transformers

    small = dict(vocab_size=40, max_position_embeddings=16, bos_token_id=0, eos_token_id=0)
    configs = {
        "neox": lambda: transformers.GPTNeoXConfig(
            **small, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ),
        "tied": lambda: transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2),
    }
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(configs[kind]()).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["neox", "tied"])
def test_every_format_of_the_same_weights_has_one_digest(kind, dtype, tmp_path):
    import torch

    made = model(kind, dtype)
    made.save_pretrained(tmp_path / "whole")
    made.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    state = torch.load(save_bin(made, tmp_path / "bin"), weights_only=True)
    names = sorted(state)
    halves = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    (tmp_path / "bin-shards").mkdir()
    for name, part in halves.items():
        torch.save({key: state[key].clone() for key in part}, tmp_path / "bin-shards" / name)
    index = {"weight_map": {key: name for name, part in halves.items() for key in part}}
    (tmp_path / "bin-shards" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    shutil.copy(tmp_path / "bin" / "config.json", tmp_path / "bin-shards")

    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    folders = [tmp_path / name for name in ("whole", "shards", "bin", "bin-shards")]
    found = [weights.describe(folder) for folder in folders]
    assert len({one.digest for one in found}) == 1
    assert [weights.content_digest(folder) for folder in folders] == [one.digest for one in found]
    parameters = {name: value for name, value in made.named_parameters()}  # tied ones once
    for folder, one in zip(folders, found, strict=True):
        assert one.parameters == sum(value.numel() for value in parameters.values())
        assert one.dtypes == (dtype,)
        assert not one.nonfinite
        assert [name for name, _ in weights.tensors(folder)] == sorted(one.shapes)
        assert weights.distance(folders[0], folder) == 0
    norm = sum(value.detach().double().square().sum().item() for value in parameters.values()) ** 0.5
    total = sum(np.square(values, dtype=np.float64).sum() for _, values in weights.tensors(tmp_path / "bin")) ** 0.5
    assert np.isclose(total, norm, rtol=1e-12)


def save_bin(made, folder):
    """Save as old versions of transformers did: with masks and rotary buffers, and tied weights twice."""
    import torch

    folder.mkdir()
    made.config.save_pretrained(folder)
    state = {
        "embed_out.weight" if name == "lm_head.weight" and made.config.model_type == "gpt_neox" else name: tensor
        for name, tensor in made.state_dict().items()
    }
    state |= {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 16, 16).tril().bool(),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.rand(4),
        "transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16).tril(),
        "transformer.h.1.attn.bias": torch.ones(1, 1, 16, 16).tril().byte(),
    }
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("gpt_neox.layers.0.attention.bias", (1, 1, 16, 16), True),
        ("transformer.h.0.attn.attention.bias", [1, 1, 16, 16], True),
        ("model.causal.bias", (1, 1, 16, 16), True),
        ("transformer.h.0.attn.masked_bias", (), True),
        ("gpt_neox.layers.0.attention.rotary_emb.inv_freq", (4,), True),
        ("model.layers.0.self_attn.rotary.inv_freq", (4,), True),
        ("inv_freq", (4,), True),
        ("gpt_neox.layers.0.attention.bias", (16,), False),
        ("gpt_neox.layers.0.attention.dense.bias", (16,), False),
        ("gpt_neox.layers.0.attention.dense.weight", (1, 1, 16, 16), False),
        ("conv.bias", (1, 2, 16, 16), False),
    ],
)
def test_buffers_are_told_from_weights(name, shape, expected, tmp_path):
    assert is_buffer(name, shape) == expected
    save_file({name: np.ones(shape, np.float32), "w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    assert [held for held, _ in weights.tensors(tmp_path)] == sorted(["w"] if expected else ["w", name])


def test_tied_weights_stored_twice_count_once_even_if_the_configuration_is_silent(tmp_path):
    made = model("tied")
    digests = set()
    for name, keys in {"said": True, "silent": False}.items():
        save_bin(made, tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        config.pop("tie_word_embeddings", None)
        path.write_text(json.dumps(config | ({"tie_word_embeddings": True} if keys else {})))
        digests.add(weights.content_digest(tmp_path / name))
    assert len(digests) == 1
    config["tie_word_embeddings"] = False  # then the two are weights of their own
    path.write_text(json.dumps(config))
    assert weights.describe(path.parent).parameters == sum(p.numel() for p in made.parameters()) + 40 * 16


def test_a_file_of_torch_before_1_6_is_read(trained, tmp_path):
    import torch

    tensors = {
        name: torch.from_numpy(values) for name, values in load_file(trained / "4" / "model.safetensors").items()
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    shutil.copy(trained / "4" / "config.json", tmp_path)
    assert weights.content_digest(tmp_path) == weights.content_digest(trained / "4")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_formats_that_numpy_lacks_are_read_as_their_values(dtype, tmp_path):
    import torch
    from safetensors.torch import save_file as save

    values = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    save({"w": values}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(dict(weights.tensors(tmp_path))["w"], values.float().numpy())
    found = weights.describe(tmp_path)
    assert found.dtypes == (dtype,)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"w": values}, tmp_path / "pytorch_model.bin")
    assert weights.content_digest(tmp_path) == found.digest


@pytest.mark.parametrize("change", ["value", "shape", "name", "dtype", "order"])
def test_the_digest_sees_every_change_of_the_weights_and_none_of_their_order(change, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.normal(size=(4, 6)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}
    value = tensors["a"].copy()
    value[2, 3] = np.nextafter(value[2, 3], np.float32(9))
    changed = {
        "value": tensors | {"a": value},
        "shape": tensors | {"a": tensors["a"].reshape(6, 4)},
        "name": {"a": tensors["a"], "c": tensors["b"]},
        "dtype": tensors | {"b": tensors["b"].view(np.float16)},
        "order": dict(reversed(tensors.items())) | {"attn.bias": np.ones((4, 4), bool)},
    }[change]
    for name, held in {"one": tensors, "two": changed}.items():
        (tmp_path / name).mkdir()
        save_file(held, tmp_path / name / "model.safetensors")
    same = weights.content_digest(tmp_path / "one") == weights.content_digest(tmp_path / "two")
    assert same == (change == "order")


def test_distances_are_those_of_all_weights_or_of_some(trained):
    one, two = (load_file(trained / step / "model.safetensors") for step in ("0", "120"))
    squares = {name: np.square(one[name].astype(float) - two[name]).sum() for name in one}
    assert np.isclose(weights.distance(trained / "0", trained / "120"), sum(squares.values()) ** 0.5, rtol=1e-12)
    name = "gpt_neox.embed_in.weight"
    assert np.isclose(weights.distance(trained / "0", trained / "120", [name]), squares[name] ** 0.5, rtol=1e-12)


def damage_bin(folder, keep):
    import torch

    path = folder / "model.safetensors"
    torch.save({name: torch.from_numpy(values) for name, values in load_file(path).items()}, folder / "whole")
    path.unlink()
    data = (folder / "whole").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: int(len(data) * keep)])


def harm_safetensors(folder, data):
    (folder / "model.safetensors").write_bytes(data)


UNREADABLE = {
    "empty": (lambda folder: harm_safetensors(folder, b""), "model.safetensors is not a whole safetensors file"),
    "pointer": (
        lambda folder: harm_safetensors(folder, b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS pointer",
    ),
    "web page": (lambda folder: harm_safetensors(folder, b"<!doctype html>" * 99), "not a whole safetensors file"),
    "half a .bin": (lambda folder: damage_bin(folder, 0.5), "pytorch_model.bin is not a whole file of torch"),
    "pickle that runs code": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR."),
        ),
        "pytorch_model.bin holds more than tensors",
    ),
    "tensor gone": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps(
                {"weight_map": {"lost.weight": (folder / "model.safetensors").rename(folder / "a.safetensors").name}}
            )
        ),
        "lost.weight is not in a.safetensors",
    ),
    "shard gone": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        ),
        "model-1.safetensors",
    ),
    "index cut": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a'),
        ),
        "index.json cannot be read",
    ),
    "config cut": (lambda folder: (folder / "config.json").write_text('{"model_type'), "config.json cannot be read"),
}


@pytest.mark.parametrize("harm", UNREADABLE)
def test_what_cannot_be_read_is_said_in_one_line(harm, series):
    change, message = UNREADABLE[harm]
    change(series[12])
    rows = audit(series.items())
    assert flags(rows) == {12: ["unreadable"]}
    sentence = rows[STEPS.index(12)].flags[0].sentence
    assert message in sentence
    assert sentence.endswith("; fetch or write this checkpoint again")
    assert "\n" not in sentence


# ---- the audit of a series


def test_an_untouched_training_has_no_flags(trained, tmp_path):
    rows = audit([(step, trained / str(step)) for step in reversed(STEPS)], STEPS)
    assert flags(rows) == {}
    assert [row.step for row in rows] == STEPS
    distances = [row.distance for row in rows]
    assert distances[0] is None
    np.testing.assert_allclose(
        distances[1:], [weights.distance(trained / str(one), trained / str(two)) for one, two in pairwise(STEPS)]
    )
    assert {row.parameters for row in rows} == {SMALL.parameters}
    assert {row.dtype for row in rows} == {"float32"}
    assert {row.bytes for row in rows} == {(trained / "0" / "model.safetensors").stat().st_size}
    assert len({row.digest for row in rows}) == len(STEPS)


def test_the_first_steps_of_a_warm_up_without_learning_are_duplicates_of_step_0_alone(series):
    serve(series, 1, 0)
    serve(series, 2, 0)
    rows = audit(series.items())
    assert flags(rows) == {1: ["duplicate"], 2: ["duplicate"]}
    assert {flag.of for row in rows for flag in row.flags} == {0}


def test_a_repository_most_of_whose_revisions_serve_the_final_weights(series):
    """As pythia-2.8b: the impostors are the majority, and contiguous."""
    wrong = [*STEPS[:14], STEPS[16]]
    for step in wrong:
        serve(series, step, 120)
    rows = audit(series.items())
    assert flags(rows) == {step: ["duplicate"] for step in wrong}
    assert {flag.of for row in rows for flag in row.flags} == {120}


def test_equal_weights_at_the_end_are_those_of_the_last_step(series):
    serve(series, 114, 120)
    rows = audit(series.items())
    assert flags(rows) == {114: ["duplicate"]}


def test_equal_weights_that_stand_apart_belong_where_they_fit(series):
    serve(series, 12, 60)
    serve(series, 96, 60)
    rows = audit(series.items())
    assert flags(rows) == {12: ["duplicate"], 96: ["duplicate"]}
    assert {flag.of for row in rows for flag in row.flags} == {60}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_another_steps_weights_in_another_number_format_are_a_duplicate(dtype, series):
    import torch
    from safetensors.torch import save_file as save

    tensors = load_file(series[120] / "model.safetensors")
    converted = {name: torch.from_numpy(values).to(getattr(torch, dtype)) for name, values in tensors.items()}
    save(converted, series[36] / "model.safetensors")
    rows = audit(series.items())
    assert flags(rows) == {36: ["duplicate"]}
    flag = rows[STEPS.index(36)].flags[0]
    assert flag.of == 120
    assert f"but for rounding ({dtype}, not float32)" in flag.sentence


def test_two_branches_interchanged_are_both_named(series):
    """With one between them, which is good."""
    kept = (series[48] / "model.safetensors").read_bytes()
    serve(series, 48, 60)
    (series[60] / "model.safetensors").write_bytes(kept)
    assert flags(audit(series.items())) == {48: ["out of line"], 60: ["out of line"]}


def test_one_shard_of_another_step_is_found(series):
    final = load_file(series[120] / "model.safetensors")
    first_shard = sorted(final)[: len(final) // 4]
    rewrite(series[54], lambda tensors: tensors | {name: final[name] for name in first_shard})
    rows = audit(series.items())
    assert flags(rows) == {54: ["out of line"]}
    assert "of its" in rows[STEPS.index(54)].flags[0].sentence


def test_another_number_of_heads_is_another_architecture(series):
    path = series[30] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 8}))
    rows = audit(series.items())
    assert flags(rows) == {30: ["other architecture"]}
    assert "num_attention_heads is 8, but 4" in rows[STEPS.index(30)].flags[0].sentence


def cut(series, step, rng):
    path = series[step] / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data)))])


def poison(series, step, rng):
    def change(tensors):
        name = sorted(tensors)[rng.integers(len(tensors))]
        tensors[name].reshape(-1)[rng.integers(tensors[name].size)] = rng.choice([np.nan, np.inf, -np.inf])
        return tensors

    rewrite(series[step], change)


def rename(series, step, rng):
    def change(tensors):
        name = sorted(tensors)[rng.integers(len(tensors))]
        return {key + "_" * (key == name): values for key, values in tensors.items()}

    rewrite(series[step], change)


def copy_near(series, step, rng):
    others = [other for other in STEPS[2:] if abs(STEPS.index(other) - STEPS.index(step)) > 3]
    source = load_file(series[rng.choice(others)] / "model.safetensors")
    rewrite(series[step], lambda _: {name: v * (1 + np.float32(1e-4) * (v > 0)) for name, v in source.items()})


def remove(series, step, rng):
    (series[step] / str(rng.choice(["model.safetensors", "config.json"]))).unlink()


HARMS = {
    "unreadable": cut,
    "not finite": poison,
    "other architecture": rename,
    "out of line": copy_near,
    "missing": remove,
}


@pytest.mark.parametrize("seed", range(15))
def test_two_faults_anywhere_are_named_and_nothing_else(seed, series):
    rng = np.random.default_rng(seed)
    places = rng.choice(STEPS, 2, replace=False).tolist()
    kinds = rng.choice(list(HARMS), 2).tolist()
    for step, kind in sorted(zip(places, kinds, strict=True), key=lambda pair: pair[1] != "out of line"):
        HARMS[kind](series, step, rng)  # first the copies, since the other harm may be to their source
    assert flags(audit(series.items())) == {step: [kind] for step, kind in zip(places, kinds, strict=True)}


def test_short_series_and_empty_ones(series, tmp_path):
    assert audit([]) == []
    assert flags(audit([], [3])) == {3: ["missing"]}
    assert flags(audit([(3, tmp_path / "nowhere")])) == {3: ["missing"]}
    for count in range(1, 5):
        assert flags(audit(list(series.items())[-count:])) == {}
    with pytest.raises(PhasegraphError, match="checkpoint 0 is given twice"):
        audit([(0, series[0]), (0, series[1])])


# ---- the command, and what it writes


def command(folder, series, *options, expected=STEPS):
    """Run the audit of a series whose missing steps have no folder; the table and the JSON that it wrote."""
    given = [f"{step}={series.get(step, '')}" for step in expected]
    out, found = folder / "series.tsv", folder / "audit.json"
    main(["audit", "--out", str(out), "--json", str(found), *map(str, options), *given])
    return read_manifest(out), json.loads(found.read_text())


def complaint(capsys, *arguments):
    """The one line with which a command fails."""
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def arc_lengths(series, steps):
    moved = [weights.distance(series[one], series[two]) for one, two in pairwise(steps)]
    return np.cumsum([0.0, *moved])


@pytest.fixture
def faulty(series):
    """A series with one or two of each fault, and what the audit should say: step -> kind."""
    serve(series, 24, 18)  # a duplicate
    rewrite(series[48], lambda _: {  # the final weights, served with other last bits
        name: values * np.float32(1 + 1e-4) for name, values in load_file(series[120] / "model.safetensors").items()
    })  # fmt: skip
    path = series[60] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    rewrite(series[72], lambda tensors: tensors | {"embed_out.weight": tensors["embed_out.weight"] * np.float32("nan")})
    del series[84]
    rewrite(
        series[96], lambda tensors: {name: np.pad(values, [(0, 2)] * values.ndim) for name, values in tensors.items()}
    )
    serve(series, 4, 120)  # the final weights, to the bit
    return {
        4: "duplicate",
        24: "duplicate",
        48: "out of line",
        60: "unreadable",
        72: "not finite",
        84: "missing",
        96: "other architecture",
    }


def test_every_fault_is_named_and_no_good_checkpoint_is(series, faulty, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    table, found = command(tmp_path, series)
    good = [step for step in STEPS if step not in faulty]
    assert table["step"].tolist() == STEPS
    assert table["step"][table["used"]].tolist() == good == used_steps(tmp_path / "series.tsv")
    flags = dict(zip(STEPS, table["flags"].tolist(), strict=True))
    assert {
        step: next(kind for kind in KINDS if text.startswith(kind)) for step, text in flags.items() if text
    } == faulty
    assert flags_of(tmp_path / "series.tsv") == left_out(tmp_path / "series.tsv") == {s: flags[s] for s in faulty}
    assert flags[24] == "duplicate of step 18"
    assert "from step 42 and" in flags[48]
    assert "from step 120" in flags[48]
    assert "embed_out.weight" in flags[72]
    assert "embed_out.weight is (66, 34), but (64, 32) in 21 checkpoints" in flags[96]

    assert found["summary"] == {
        "checkpoints": len(STEPS),
        "flagged": 7,
        "used": len(good),
        "by_kind": {
            **{"missing": 1, "unreadable": 1, "not finite": 1, "other architecture": 1},
            **{"duplicate": 2, "out of line": 1},
        },
    }
    written = {row["step"]: row for row in found["checkpoints"]}
    assert list(written) == STEPS
    assert {step: row["flags"][0]["kind"] for step, row in written.items() if row["flags"]} == faulty
    assert (written[4]["flags"][0]["of"], written[24]["flags"][0]["of"]) == (120, 18)
    assert [step for step, row in written.items() if row["used"]] == good

    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(":")[0] for line in warned] == [f"checkpoint {step}" for step in faulty]
    assert caplog.records[-1].getMessage() == f"{len(STEPS)} checkpoints, 7 flagged, {len(good)} used"


def test_every_column_of_a_series_with_faults(series, faulty, tmp_path):
    table, found = command(tmp_path, series, "--tokens-per-step", 128)
    row = {step: {name: values[at] for name, values in table.items()} for at, step in enumerate(STEPS)}
    good = [step for step in STEPS if step not in faulty]
    np.testing.assert_allclose(table["arc_length"][table["used"]], arc_lengths(series, good), rtol=1e-12)
    assert np.isnan(table["arc_length"][~table["used"]]).all()
    assert np.isnan(row[0]["displacement"])
    for step, before in {2: 1, 4: 2, 8: 2, 24: 18, 30: 18, 48: 42, 54: 42, 102: 90}.items():
        assert np.isclose(row[step]["displacement"], weights.distance(series[before], series[step]), rtol=1e-12)
    for step in STEPS:
        lost = step in (60, 84)
        assert (row[step]["sha256"] == "") == np.isnan(row[step]["bytes"]) == (row[step]["dtype"] == "") == lost
        assert np.isnan(row[step]["displacement"]) == (step in (0, 60, 72, 84, 96))
        assert row[step]["path"] == ("" if step == 84 else f"step{step}")
        assert row[step]["tokens"] == step * 128
        if not lost:
            assert row[step]["sha256"] == weights.content_digest(series[step])
            assert row[step]["bytes"] == (series[step] / "model.safetensors").stat().st_size
            assert row[step]["dtype"] == "float32"
            tensors = load_file(series[step] / "model.safetensors").values()
            assert row[step]["parameters"] == sum(values.size for values in tensors)
    assert set(table["revision"]) == set(table["commit"]) == set(table["stage"]) == {""}
    assert (tmp_path / "series.tsv").read_text().splitlines()[0].split("\t") == list(table)
    assert list(table) == [
        *("step", "path", "revision", "commit", "sha256", "bytes", "dtype", "parameters", "tokens", "stage"),
        *("displacement", "arc_length", "flags", "used"),
    ]
    for name, dtype in {"step": np.int64, "used": np.bool_, "tokens": np.float64, "bytes": np.float64}.items():
        assert table[name].dtype == dtype
    assert {one["step"]: one["distance"] for one in found["checkpoints"] if one["distance"] is not None} == {
        step: one["displacement"] for step, one in row.items() if not np.isnan(one["displacement"])
    }


def test_include_takes_all_that_can_be_measured(series, faulty, tmp_path):
    table, found = command(tmp_path, series, "--flagged", "include")
    used = [step for step in STEPS if step not in (60, 72, 84, 96)]
    assert table["step"][table["used"]].tolist() == used
    np.testing.assert_allclose(table["arc_length"][table["used"]], arc_lengths(series, used), rtol=1e-12)
    assert found["summary"]["flagged"] == 7
    assert set(flags_of(tmp_path / "series.tsv")) == set(faulty)
    assert set(left_out(tmp_path / "series.tsv")) == {60, 72, 84, 96}


def test_named_steps_are_included_and_others_are_not(series, faulty, tmp_path):
    table, _ = command(tmp_path, series, "--flagged", "48,24,30")  # 30 is good
    used = [step for step in STEPS if step not in faulty or step in (24, 48)]
    assert table["step"][table["used"]].tolist() == used
    np.testing.assert_allclose(table["arc_length"][table["used"]], arc_lengths(series, used), rtol=1e-12)
    assert table["displacement"][STEPS.index(24)] == 0


@pytest.mark.parametrize("step", [60, 72, 84, 96])
def test_a_step_that_cannot_be_measured_cannot_be_named(step, series, faulty, tmp_path, capsys):
    said = complaint(capsys, tmp_path, series, "--flagged", f"24,{step}")
    assert f"checkpoint {step} is flagged and cannot be included all the same ({faulty[step]}: " in said
    assert not (tmp_path / "series.tsv").exists()


def test_stop_names_the_first_and_writes_nothing(series, faulty, tmp_path, capsys, caplog):
    said = complaint(capsys, tmp_path, series, "--flagged", "stop")
    assert said == (
        f"phasegraph: error: 7 of {len(STEPS)} checkpoints are flagged: 4 (duplicate), 24 (duplicate), 48 (out of line)"
        " and 4 more; the log above says why; take them out of steps, or set flagged: exclude"
    )
    assert not (tmp_path / "series.tsv").exists()
    assert not (tmp_path / "audit.json").exists()
    assert [record.args[0] for record in caplog.records if record.levelno == logging.WARNING] == list(faulty)


def test_stop_lets_a_good_series_pass(trained, tmp_path):
    table, found = command(tmp_path, {step: trained / str(step) for step in STEPS}, "--flagged", "stop")
    assert table["used"].all()
    assert found["summary"] == {"checkpoints": len(STEPS), "flagged": 0, "used": len(STEPS), "by_kind": {}}
    assert flags_of(tmp_path / "series.tsv") == left_out(tmp_path / "series.tsv") == {}


def test_what_stands_for_a_checkpoint_that_could_not_be_had_is_named(series, tmp_path):
    sentence = "lab/model at 0123abcd: model.safetensors has\tanother hash;\nleave the step out"
    for step, kind in {36: "missing", 54: "unreadable"}.items():
        shutil.rmtree(series[step])
        write_fault(series[step], CheckpointFault(kind, sentence))
    table, found = command(tmp_path, series)
    assert flags_of(tmp_path / "series.tsv") == {
        36: f"missing: {' '.join(sentence.split())}",
        54: f"unreadable: {' '.join(sentence.split())}",
    }
    assert table["path"][[STEPS.index(36), STEPS.index(54)]].tolist() == ["", "step54"]
    flag = found["checkpoints"][STEPS.index(36)]["flags"][0]
    assert (flag["kind"], flag["sentence"]) == ("missing", sentence)


def test_pins_say_the_revision_the_commit_the_stage_and_the_tokens(trained, tmp_path):
    rows = ["step\trepo\trevision\tcommit\ttokens\tstage", f"0\tlab/m\tstep0\t{'a' * 40}\t\t",
            f"4\tlab/m\tstage1-4\t{'b' * 40}\t5000\tstage1", "7\tlab/m\t\t\t\t"]  # fmt: skip
    (tmp_path / "pins.tsv").write_text("\n".join(rows) + "\n")
    options = ("--pins", tmp_path / "pins.tsv", "--tokens-per-step", "10")
    table, _ = command(tmp_path, {step: trained / str(step) for step in (0, 4, 8)}, *options, expected=(0, 4, 7, 8))
    assert table["revision"].tolist() == ["step0", "stage1-4", "", ""]
    assert table["commit"].tolist() == ["a" * 40, "b" * 40, "", ""]
    assert table["stage"].tolist() == ["", "stage1", "", ""]
    assert table["tokens"].tolist() == [0, 5000, 70, 80]
    assert table["used"].tolist() == [True, True, False, True]
    assert all((tmp_path / path / "model.safetensors").is_file() for path in table["path"] if path)
    assert table["path"][0] == (trained / "0").as_posix()  # outside the project and the table's folder


def test_paths_below_the_working_directory_are_relative_to_the_table(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table, _ = command(Path("results"), {0: Path("step0")}, expected=(0,))
    assert table["path"].tolist() == ["../step0"]


@pytest.mark.parametrize("count", [1, 2])
def test_few_checkpoints_suffice(count, series, tmp_path):
    named = shutil.copytree(series[0], tmp_path / "lr=0.1")
    steps = (0, 120)[:count]
    table, _ = command(tmp_path, {0: named, 120: series[120]}, expected=steps)
    assert table["path"].tolist() == ["lr=0.1", "step120"][:count]
    assert table["used"].all()
    assert used_steps(tmp_path / "series.tsv") == list(steps)
    np.testing.assert_allclose(table["arc_length"], arc_lengths({0: named, 120: series[120]}, steps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--flagged", "keep"), "--flagged must be exclude, include, stop or whole numbers"),
        (("--flagged", "7"), "checkpoint 7 cannot be included: the series has no such step"),
        (("step0",), "STEP=FOLDER, such as 500=run/checkpoint-500, not 'step0'"),
        (("-0=x",), "STEP=FOLDER"),
        (("--pins", "nowhere.tsv"), "nowhere.tsv cannot be read as a table of pins"),
        (("0=elsewhere",), "checkpoint 0 is given twice"),
    ],
)
def test_a_mistake_is_one_line(options, message, series, tmp_path, capsys):
    options = ("--", *options) if options[0] == "-0=x" else options
    with pytest.raises(SystemExit) as end:
        main(
            ["audit", "--out", str(tmp_path / "s.tsv"), "--json", str(tmp_path / "a.json"), f"0={series[0]}", *options]
        )
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "s.tsv").exists()


def test_a_series_without_a_usable_checkpoint_is_an_error(series, tmp_path, capsys):
    said = complaint(capsys, tmp_path, {})
    assert (
        f"series.tsv: no checkpoint is usable; {len(STEPS)} of {len(STEPS)} checkpoints are flagged: 0 (missing)"
        in said
    )


COLUMNS = "step|path|revision|commit|sha256|bytes|dtype|parameters|tokens|stage|displacement|arc_length|flags"
HEADER = f"{COLUMNS}|used\n"
GOOD = "0|p/0|||ab|9|float32|3||||0.0||yes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"series\.tsv cannot be read as a manifest \(No such file"),
        ("", "has no column step"),
        (f"{COLUMNS}\n", "has no column used"),
        (HEADER + GOOD.removesuffix("||yes"), "the row of step 0 is damaged"),
        (HEADER + GOOD.replace("yes", "true"), "the row of step 0 is damaged"),
        (HEADER + GOOD.replace("0|p", "x|p"), "invalid literal"),
        (HEADER, r"series\.tsv: no checkpoint is usable; it lists none"),
        (HEADER + GOOD.replace("||yes", "|missing: x|no"), r"series\.tsv: no checkpoint is usable; all 1"),
    ],
)
def test_a_table_without_steps_to_use_is_named(text, message, tmp_path):
    path = tmp_path / "series.tsv"
    if text is not None:
        path.write_text(text.replace("|", "\t"))
    with pytest.raises(PhasegraphError, match=message) as error:
        used_steps(path)
    assert "\n" not in str(error.value)
    if "usable" not in message:
        with pytest.raises(PhasegraphError, match=message):
            read_manifest(path)


def test_the_steps_in_use_are_read_without_numpy(tmp_path):
    (tmp_path / "series.tsv").write_text((HEADER + GOOD).replace("|", "\t"))
    code = "import sys; from phasegraph.series.table import used_steps; print(used_steps(sys.argv[1]), *sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "series.tsv"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("[0] ")
    assert not {"numpy", "torch", "safetensors"} & set(run.stdout.split())


# ---- the rule, on lines whose truth is planted


def path_of(kind, rng, count, size=400):
    """Points [count, size] of a walk with drift, whose gaps grow or shrink by up to a thousand."""
    gaps = np.sort(10 ** rng.uniform(-3, 0, count))[:: -1 if kind == "slowing" else 1]
    drift = rng.normal(size=size) * {"walk": 0, "drift": 3, "slowing": 1, "growing": 1}[kind]
    return np.cumsum(np.sqrt(gaps)[:, None] * rng.normal(size=(count, size)) + gaps[:, None] * drift, 0)


def distances_of(points):
    return np.sqrt(np.square(points[:, None] - points).sum(-1))


@pytest.mark.parametrize("kind", ["walk", "drift", "slowing", "growing"])
def test_points_of_a_path_are_never_out_of_line_and_a_moved_one_is(kind):
    rng = np.random.default_rng(0)
    for _ in range(25):
        count = int(rng.integers(5, 25))
        points = path_of(kind, rng, count)
        assert out_of_line(distances_of(points)) == {}
        place = int(rng.integers(1, count - 3))
        points[place] = points[-1] + 0.01 * rng.normal(size=points.shape[1]) * np.std(points[-1] - points[-2])
        assert set(out_of_line(distances_of(points))) == {place}


def test_the_rule_does_not_depend_on_units_or_on_the_direction_of_time():
    rng = np.random.default_rng(1)
    for _ in range(20):
        gaps = rng.uniform(1, 2, 14)
        points = np.cumsum(np.sqrt(gaps)[:, None] * rng.normal(size=(14, 1000)), 0)
        points[[4, 9]] = points[[9, 4]]
        among = distances_of(points)
        found = set(out_of_line(among))
        assert found == {4, 9}
        assert set(out_of_line(among * 1e-6)) == found
        assert {13 - point for point in out_of_line(among[::-1, ::-1])} == found
