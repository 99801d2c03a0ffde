"""The induction task and behaviour on it: against plain transformers, and against planted attention."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of, leave_one_out
from phasegraph.model.load import read
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.gather import behaviour_table, require_settings
from phasegraph.tasks.induction import induction
from phasegraph.tasks.language import LIKELY, PIECES, frequencies, piece_starts


def test_prompts_repeat_their_segment():
    task = induction(prompts=32, reference=8, segment=5, seed=3, start_token=0, token_range=(1, 64))
    assert task.tokens.shape == (32, 11)
    assert task.reference.shape == (8, 11)
    np.testing.assert_array_equal(task.tokens[:, 1:6], task.tokens[:, 6:])
    assert (task.tokens[:, 0] == 0).all()
    assert task.tokens[:, 1:].min() >= 1
    assert task.tokens.max() <= 63
    again = induction(prompts=32, reference=8, segment=5, seed=3, start_token=0, token_range=(1, 64))
    np.testing.assert_array_equal(task.tokens, again.tokens)
    other = induction(prompts=32, reference=8, segment=5, seed=4, start_token=0, token_range=(1, 64))
    assert (task.tokens != other.tokens).any()
    assert not {*map(tuple, task.tokens)} & {*map(tuple, task.reference)}


def test_more_reference_prompts_change_no_prompt():
    few = induction(prompts=16, reference=2, segment=5, token_range=(1, 64))
    many = induction(prompts=16, reference=90, segment=5, token_range=(1, 64))
    np.testing.assert_array_equal(few.tokens, many.tokens)


def test_without_a_start_token():
    task = induction(prompts=16, reference=1, segment=5, start_token=None, token_range=(0, 9))
    assert task.tokens.shape == (16, 10)
    assert task.first_position == 0


def test_a_corrupted_prompt_asks_the_same_and_holds_no_answer():
    task = induction(prompts=160, reference=1, segment=5, token_range=(1, 9), answers=2)
    first, second = task.positions["first"], task.positions["second"]
    np.testing.assert_array_equal(task.corrupted[:, second], task.tokens[:, second])
    assert (task.corrupted[:, first] != task.tokens[:, first]).all()
    assert (task.corrupted[:, 0] == 0).all()
    changed = task.corrupted[:, first]
    assert (changed.min(), changed.max()) == (1, 8)
    counts = np.bincount((changed - task.tokens[:, first]).ravel() % 8, minlength=8)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.001


def test_answers_are_the_last_tokens_of_the_second_copy():
    task = induction(prompts=16, reference=1, segment=5, token_range=(1, 64), answers=3)
    np.testing.assert_array_equal(task.answer_positions, [7, 8, 9])  # they predict positions 8 to 10
    np.testing.assert_array_equal(task.right, task.tokens[:, task.answer_positions + 1])
    np.testing.assert_array_equal(task.wrong, task.corrupted[:, task.answer_positions + 1 - 5])
    assert (task.right != task.wrong).all()


def test_tokens_are_uniform():
    tokens = induction(prompts=1600, reference=1, segment=20, token_range=(1, 9)).tokens[:, 1:21]
    counts = np.bincount(tokens.ravel(), minlength=9)[1:]
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    ("options", "key"),
    [({"prompts": 20}, "task.prompts"), ({"token_range": (5, 6)}, "token_range"), ({"answers": 4}, "task.answers")],
)
def test_a_mistake_names_the_key(options, key):
    with pytest.raises(PhasegraphError, match=key):
        induction(**{"segment": 4, "token_range": (1, 9), **options})


# --- structured tokens ----------------------------------------------------------------------------------------------


def structured(prompts: int, segment: int = 20, vocabulary: int = 24, **options):
    return induction(
        prompts=prompts, reference=1, segment=segment, token_range=(1, vocabulary + 1), tokens="structured", **options
    )


def next_token(vocabulary: int) -> np.ndarray:
    """Probabilities of the next token (column), by how long each token's pieces lie on every other one."""
    frequency = frequencies(vocabulary)
    ends = frequency.cumsum()
    overlap = np.zeros((vocabulary, vocabulary))
    for token, starts in enumerate(piece_starts(vocabulary)):
        for start in starts:
            stop = start + frequency[token] / PIECES
            for other in range(vocabulary):
                overlap[token, other] += max(min(stop, ends[other]) - max(start, ends[other] - frequency[other]), 0)
    return LIKELY * overlap / frequency[:, None] + (1 - LIKELY) * frequency


def test_uniform_tokens_are_those_that_were_always_drawn():
    task = induction(prompts=32, reference=8, segment=8, seed=3, token_range=(1, 64))
    np.testing.assert_array_equal(task.tokens[:, 1:9], np.random.default_rng([3, 0]).integers(1, 64, size=(32, 8)))
    np.testing.assert_array_equal(task.reference[:, 9:], np.random.default_rng([3, 1]).integers(1, 64, size=(8, 8)))
    shift = np.random.default_rng([3, 2]).integers(1, 63, size=(32, 8))
    np.testing.assert_array_equal(task.corrupted[:, 1:9], 1 + (task.tokens[:, 1:9] - 1 + shift) % 63)


def test_structured_prompts_have_the_same_form():
    task = structured(32, segment=5, answers=2, seed=3)
    assert task.tokens.shape == (32, 11)
    np.testing.assert_array_equal(task.tokens[:, 1:6], task.tokens[:, 6:])
    np.testing.assert_array_equal(task.corrupted[:, 6:], task.tokens[:, 6:])
    assert (task.tokens[:, 0] == 0).all()
    assert (task.corrupted[:, 0] == 0).all()
    np.testing.assert_array_equal(task.right, task.tokens[:, task.answer_positions + 1])
    np.testing.assert_array_equal(task.wrong, task.corrupted[:, task.answer_positions + 1 - 5])
    np.testing.assert_array_equal(task.tokens, structured(32, segment=5, seed=3).tokens)
    assert (task.tokens != structured(32, segment=5, seed=4).tokens).any()
    assert not {*map(tuple, task.tokens)} & {*map(tuple, task.reference)}


def test_a_chain_keeps_zipfs_law_and_few_pairs_are_likely():
    for vocabulary in (2, 9, 63):
        chain = next_token(vocabulary)
        np.testing.assert_allclose(
            frequencies(vocabulary),
            1 / np.arange(1, vocabulary + 1) / sum(1 / rank for rank in range(1, vocabulary + 1)),
        )
        np.testing.assert_allclose(chain.sum(1), 1)
        np.testing.assert_allclose(frequencies(vocabulary) @ chain, frequencies(vocabulary))
        likely = chain > (1 - LIKELY) * frequencies(vocabulary) + 1e-12
        assert likely.any(1).all()
        assert likely.sum() <= (PIECES + 1) * vocabulary
    entropy = -(frequencies(63) @ (chain * np.log(chain)).sum(1))
    assert entropy < -(frequencies(63) * np.log(frequencies(63))).sum() - 0.9 < np.log(63) - 1.6


def test_structured_tokens_follow_zipfs_law_at_every_place():
    tokens = structured(4800, segment=6).tokens[:, 1:7] - 1
    for place in range(6):
        counts = np.bincount(tokens[:, place], minlength=24)
        assert stats.chisquare(counts, 4800 * frequencies(24)).pvalue > 0.001


def test_structured_tokens_follow_the_chain():
    tokens = structured(1600).tokens[:, 1:21] - 1
    pairs = np.zeros((24, 24))
    np.add.at(pairs, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    expected = pairs.sum(1, keepdims=True) * next_token(24)
    enough = expected > 5
    statistic = ((pairs - expected) ** 2 / expected)[enough].sum()
    assert stats.chi2.sf(statistic, enough.sum() - 24) > 0.001


def test_a_corrupted_structured_prompt_differs_everywhere_and_is_of_the_same_language():
    task = structured(1600)
    original, changed = task.tokens[:, 1:21] - 1, task.corrupted[:, 1:21] - 1
    assert (original != changed).all()
    assert (task.right != task.wrong).all()
    chain = next_token(24)
    surprise = {
        name: -np.log(chain[of[:, :-1], of[:, 1:]]).mean()
        for name, of in {
            "original": original,
            "changed": changed,
            "any": np.random.default_rng(0).permuted(changed, axis=1),
        }.items()
    }
    assert abs(surprise["changed"] - surprise["original"]) < 0.25
    assert surprise["any"] > surprise["changed"] + 0.5


def test_two_tokens_suffice_and_a_large_vocabulary_is_no_matter():
    two = structured(16, segment=5, vocabulary=2)
    np.testing.assert_array_equal(two.corrupted[:, 1:6], 3 - two.tokens[:, 1:6])
    many = structured(128, segment=50, vocabulary=50_000)
    assert many.tokens.max() > 10_000
    assert (many.tokens[:, 1:] <= 10).mean() > 0.2
    assert (many.corrupted[:, 1:51] != many.tokens[:, 1:51]).all()


def test_families_are_drawn_apart():
    uniform = induction(prompts=1600, reference=1, segment=5, token_range=(1, 25)).tokens[:, 1:6]
    rho = [stats.spearmanr(uniform[:, i], structured(1600, segment=5).tokens[:, 1 + i]).statistic for i in range(5)]
    assert np.abs(rho).max() < 0.1  # 4 standard errors


def test_another_family_is_unknown():
    with pytest.raises(PhasegraphError, match=r"task\.tokens is 'words'; it must be uniform or structured"):
        induction(prompts=16, segment=4, token_range=(1, 9), tokens="words")


# --- behaviour ------------------------------------------------------------------------------------------------------


def test_groups():
    np.testing.assert_array_equal(group_of(32), np.repeat(np.arange(16), 2))
    with pytest.raises(ValueError, match="24 prompts"):
        group_of(24)
    values = np.arange(16.0)
    np.testing.assert_array_equal(leave_one_out(values), [120, *(120 - values)])


@pytest.mark.parametrize("name", ["parallel", "gpt2"])
def test_behaviour_against_plain_loops(models, task, name):
    found = behaviour(read(models[name]), task)
    model = AutoModelForCausalLM.from_pretrained(models[name], attn_implementation="eager", local_files_only=True)
    with torch.inference_mode():
        output = model(torch.from_numpy(task.tokens), output_attentions=True)
    log_p = output.logits.log_softmax(-1).numpy()
    patterns = np.stack([pattern.numpy() for pattern in output.attentions])  # [L, P, H, T, T]
    n, segment = len(task.tokens), task.segment

    def mean_over(prompts):
        loss = {"loss_first": [], "loss_second": [], "accuracy": []}
        prefix, previous = [], []
        for p in prompts:
            for t in range(1, 2 * segment + 1):  # the token that is predicted
                token = task.tokens[p, t]
                if t <= segment:
                    loss["loss_first"].append(-log_p[p, t - 1, token])
                elif t > segment + 1:  # the first repeated token cannot be known
                    loss["loss_second"].append(-log_p[p, t - 1, token])
                    loss["accuracy"].append(log_p[p, t - 1].argmax() == token)
                if t > segment:
                    prefix.append(patterns[:, p, :, t, t - segment + 1])
                if t > 1:
                    previous.append(patterns[:, p, :, t, t - 1])
        return {key: np.mean(values) for key, values in loss.items()} | {
            "prefix_matching": np.mean(prefix, axis=0),
            "previous_token": np.mean(previous, axis=0),
        }

    for index, prompts in [(0, range(n)), (1, range(2, n)), (16, range(n - 2))]:
        for key, value in mean_over(prompts).items():
            np.testing.assert_allclose(found[key][index], value, atol=2e-5, err_msg=f"{key} {index}")


def test_behaviour_does_not_depend_on_the_size_of_a_pass(models, task, monkeypatch):
    whole = behaviour(read(models["parallel"]), task)
    monkeypatch.setattr("phasegraph.tasks.behaviour.LOGITS_PER_PASS", 5 * 9 * 29)  # five prompts
    for key, value in behaviour(read(models["parallel"]), task).items():
        np.testing.assert_allclose(value, whole[key], atol=1e-6, err_msg=key)


def test_table_of_behaviour(tmp_path, rng):
    for step in (8, 16, 4):
        loss = leave_one_out(rng.normal(2, 0.1, 16)) / np.r_[16, np.full(16, 15)]
        np.savez(tmp_path / f"{step}.npz", loss_first=loss, previous_token=np.full((17, 2, 3), step / 100))
    table = behaviour_table([tmp_path / f"{step}.npz" for step in (8, 16, 4)])
    assert table["step"].unique(maintain_order=True).to_list() == [4, 8, 16]
    assert len(table) == 3 * (1 + 6)
    row = table.row(by_predicate=(pl.col("step") == 8) & (pl.col("node") == "L1H2"), named=True)
    assert row["quantity"] == "previous_token"
    assert row["estimate"] == pytest.approx(0.08)
    assert row["low"] == pytest.approx(0.08)
    loss = table.filter(pl.col("quantity") == "loss_first")
    assert loss["node"].null_count() == 3
    assert (loss["low"] < loss["estimate"]).all()
    assert (loss["estimate"] < loss["high"]).all()


def test_table_of_effects_on_the_answer_names_the_nodes(tmp_path, rng):
    nodes = np.array(["embed", "L0H0", "L0MLP", "logits"])
    effects = {step: rng.normal(0, 1, (16, 4)) for step in (0, 7)}
    for step, groups in effects.items():
        left_out = np.stack([groups.mean(0), *(np.delete(groups, k, axis=0).mean(0) for k in range(16))])
        np.savez(
            tmp_path / f"{step}.npz",
            previous_token=np.ones((17, 1, 1)),
            answer_logit_difference_total=left_out,
            answer_kl_direct=left_out**2,
            nodes=nodes,
        )
    table = behaviour_table([tmp_path / "0.npz", tmp_path / "7.npz"])
    assert set(table["quantity"]) == {"previous_token", "answer_logit_difference_total", "answer_kl_direct"}
    assert len(table) == 2 * (1 + 4 + 4)
    found = table.filter((pl.col("quantity") == "answer_logit_difference_total") & (pl.col("step") == 7))
    assert found["node"].to_list() == nodes.tolist()
    np.testing.assert_allclose(found["estimate"], effects[7].mean(0))
    margin = stats.t.ppf(0.95, 15) * effects[7].std(0, ddof=1) / 4  # the textbook interval of a mean
    np.testing.assert_allclose(found["high"], effects[7].mean(0) + margin)


@pytest.mark.parametrize("nodes", [{}, {"nodes": np.array(["L0H0"])}])
def test_effects_without_the_names_of_their_nodes_are_refused(tmp_path, nodes):
    np.savez(tmp_path / "7.npz", answer_kl_total=np.ones((17, 4)), **nodes)
    with pytest.raises(PhasegraphError, match=r"7\.npz: answer_kl_total of 4 nodes, but the names of [01]; delete"):
        behaviour_table([tmp_path / "7.npz"])


def test_checkpoints_that_were_measured_otherwise_are_refused(tmp_path):
    study = {"measure": "variance", "task": {"segment": 8}}
    for step, settings in {0: study, 7: study | {"task": {"segment": 5}}, 9: None}.items():
        recorded = {} if settings is None else {"settings": json.dumps(settings)}
        np.savez(tmp_path / f"{step}.npz", previous_token=np.ones((17, 1, 1)), **recorded)
    require_settings([tmp_path / "0.npz"], study)
    with pytest.raises(
        PhasegraphError, match=r"7\.npz was measured with task: .*5.* and the study has .*8.* now; delete"
    ):
        require_settings([tmp_path / "0.npz", tmp_path / "7.npz"], study)
    with pytest.raises(PhasegraphError, match=r"9\.npz was measured with measure: null"):
        require_settings([tmp_path / "9.npz"], study)
    assert len(behaviour_table([tmp_path / "0.npz", tmp_path / "7.npz"])) == 2
