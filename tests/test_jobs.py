"""What jobs ask for, and which checkpoints share one."""

import json
from itertools import pairwise

import pytest

from phasegraph import jobs
from phasegraph.edges.cost import memory_mib, seconds
from phasegraph.model.size import size_of
from phasegraph.series.architecture import size_in

STUDY = {
    "task": {"prompts": 128, "reference": 64, "segment": 50, "start_token": 0, "answers": 4},
    "intervention": "mean",
    "direct": True,
    "qkv": False,
    "by_position": True,
    "control": False,
    "answer": ["logit-difference"],
    "nodes": {"embed": False, "logits": False},
    "dtype": "float32",
}
SHAPES = {"14m": (6, 4, 128), "160m": (12, 12, 768), "12b": (36, 40, 5120)}


def config(shape):
    layers, heads, width = shape
    model = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": width}
    return model | {"model_type": "gpt_neox", "intermediate_size": 4 * width, "vocab_size": 50304}


SIZES = {name: size_of(config(shape)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("each", [0.01, 1, 7, 100, 5000, None])
@pytest.mark.parametrize("count", [1, 7, 154])
def test_shards_hold_every_checkpoint_once_in_order_and_no_more_work_than_wanted(each, count):
    steps = list(range(0, 10 * count, 10))
    shards = jobs.shards(steps, each, wanted=600)
    assert [step for shard in shards.values() for step in shard] == steps
    assert all(first == shard[0] for first, shard in shards.items())
    for shard in shards.values():
        assert len(shard) == 1 or (len(shard) <= jobs.MOST_IN_A_JOB and len(shard) * each <= 600)
    lengths = [len(shard) for shard in shards.values()]
    assert all(one == lengths[0] for one, _ in pairwise(lengths))  # but for the last
    if each in (5000, None):
        assert lengths == [1] * count


def test_small_models_share_jobs_and_large_ones_have_their_own():
    number = {
        name: len(jobs.shards(range(154), jobs.seconds_each(size, STUDY, "cpu"), 600)) for name, size in SIZES.items()
    }
    assert number["14m"] < 20
    assert number["160m"] == number["12b"] == 154


def test_what_is_asked_for_is_what_is_estimated_and_what_stands_around_it():
    for size in SIZES.values():
        assert jobs.edges_mib(size, STUDY, 1024) - jobs.AROUND == memory_mib(size, STUDY, 1024)
        assert 60 * jobs.edges_minutes(size, STUDY, "cpu") >= 3 * seconds(size, STUDY)
    grows = [jobs.weights_mib(size, 3) for size in SIZES.values()]
    assert grows == sorted(grows)
    assert grows[-1] > 3 * 4 * SIZES["12b"].parameters / 2**20
    nodes = 36 * 41
    assert jobs.graphs_mib(SIZES["12b"], STUDY, 154, 1) > 154 * 17 * nodes**2 * 8 / 2**20


def test_an_unknown_model_gets_much_and_an_hour():
    assert jobs.edges_mib(None, STUDY, 1024) >= jobs.UNKNOWN_MIB
    assert jobs.edges_minutes(None, STUDY, "cpu") == 60
    assert jobs.weights_mib(None, 3) >= jobs.UNKNOWN_MIB
    assert jobs.graphs_mib(None, STUDY, 1, 1) > jobs.AROUND
    assert jobs.graph_minutes(None, STUDY) > jobs.graph_minutes(SIZES["14m"], STUDY)


def test_gpus_are_asked_for_by_the_device():
    assert (jobs.gpus("cuda"), jobs.gpus("cpu")) == (1, 0)


def test_the_size_of_a_directory_is_that_of_its_first_sound_configuration(tmp_path):
    folders = [tmp_path / name for name in ("absent", "broken", "strange", "sound", "other")]
    for folder, text in zip(
        folders[1:],
        ("{", json.dumps({"model_type": "nonsense"}), *(json.dumps(config(SHAPES[name])) for name in ("160m", "14m"))),
        strict=True,
    ):
        folder.mkdir()
        (folder / "config.json").write_text(text)
    assert size_in(folders) == SIZES["160m"]
    assert size_in(folders[:3]) is None
