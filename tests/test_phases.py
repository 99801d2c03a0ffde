"""Tests of a study's phases from end to end (about 45 s on one core); the parts have files of their own."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from planted_series import falling_loss, film, write_study

from phasegraph.errors import PhasegraphError
from phasegraph.phases.leads import least_checkpoints
from phasegraph.phases.settings import Settings
from phasegraph.phases.study import plain, run_study
from phasegraph.phases.tables import PATH_METRICS, read_tables

SETTINGS = Settings(bootstraps=99)
OPTIONS = ("metrics", "replicates", "blocks", "behaviour", "manifest")
N, SWITCH = 100, 60
QUANTITIES = {"loss_second", "prefix_matching"}


@pytest.fixture(scope="module")
def switched_film():
    """Wiring that settles from one checkpoint to the next: index 60, step 240."""
    return film(3, lambda i: 0.3 if i < SWITCH else 0.18, steps=4 * np.arange(N))


@pytest.fixture(scope="module")
def smooth_film():
    """Annealing without a break."""
    return film(2, lambda i: 0.3 * np.exp(-i / 120), lambda i: 0.01, steps=4 * np.arange(N))


def first(series, n):
    """The first n checkpoints."""
    return {name: values[:, :n] if values.ndim > 1 else values[:n] for name, values in series.items()}


def command(files, out):
    options = [part for name in OPTIONS for part in (f"--{name}", str(getattr(files, name)))]
    return [sys.executable, "-m", "phasegraph.phases", "--out", str(out), "--bootstraps", "99", *options]


def steps_of(found, test):
    return [boundary["step"] for boundary in found[test]["boundaries"]]


def test_switched_study_end_to_end(tmp_path, switched_film):
    files = write_study(tmp_path, switched_film, falling_loss(N, middle=50))
    found = run_study(files, tmp_path / "phases.json", SETTINGS)
    assert json.loads((tmp_path / "phases.json").read_text()) == found
    assert found["checkpoints"] == {"n": N, "first": 0, "last": 396, "dropped": [], "steps": list(range(0, 400, 4))}
    assert steps_of(found, "test_a") == steps_of(found, "test_b") == [4 * SWITCH]
    [boundary] = found["test_a"]["boundaries"]
    assert boundary["index"] == SWITCH and boundary["kind"] == "abrupt" and boundary["p_value"] == 0.01
    assert boundary["interval_steps"][0] <= 4 * SWITCH <= boundary["interval_steps"][1]
    assert not found["smooth_drift_suffices"]
    assert found["sentences"][0].startswith("Smooth drift does not suffice")
    assert found["settings"]["path_effect"] == "direct"
    assert abs(found["behaviour"]["transition"]["half"] - 200) <= 4
    for test in ("test_a", "test_b"):
        search = found[test]["search"][0]
        assert search["best_step"] == search["steps"][np.argmax(search["gains"])] == 4 * SWITCH
        assert list(search["quantiles"]) == ["0.5", "0.9", "0.95", "0.99"]
        assert search["quantiles"]["0.99"] < max(search["gains"])
    check_recurrence(found)
    check_comparisons(found)


def check_recurrence(found):
    """The switch is there without any group of prompts, and so are the labels."""
    again = found["recurrence"]
    assert again["groups"] == 16
    for test in ("test_a", "test_b"):
        assert [row["step"] for row in again[test]] == [4 * SWITCH]
        assert again[test][0]["share"] >= 15 / 16
        assert len(again[test][0]["places"]) == len(again["all"][test]) == 16
    segments = found["segments"]
    assert [(s["label"], s["start_step"], s["end_step"]) for s in segments] == [
        ("exploration", 0, 4 * SWITCH - 4),
        ("refinement", 4 * SWITCH, 396),
    ]
    assert all(segment["label_share"] >= 15 / 16 for segment in segments)


def check_comparisons(found):
    """What other methods and other searches say is there."""
    others = found["others"]
    assert {"pelt", "kernel", "hmm"} <= set(others)
    assert any(abs(step - 4 * SWITCH) <= 8 for step in others["pelt"]["steps"])
    assert len(others["hmm"]["states"]) == N - 1
    assert set(found["behaviour"]["lead_lag"]) == QUANTITIES
    for row in found["behaviour"]["lead_lag"].values():
        assert abs(row["lag"]) <= 15 and 0 < row["p_value"] <= row["p_bonferroni"] <= 1
    table = found["sensitivity"]
    blocks = {(row["max_changes"], row["min_size"]) for row in table if row["series"] == "blocks"}
    assert blocks == {(3, 5), (5, 5), (3, 3), (3, 8)}
    assert [(row["max_changes"], row["min_size"]) for row in table if row["series"] == "metrics"] == [(3, 5)]
    assert all(4 * SWITCH in row["test_a"]["steps"] for row in table if row["series"] == "blocks")


def test_smooth_study_end_to_end(tmp_path, smooth_film):
    found = run_study(write_study(tmp_path, smooth_film), tmp_path / "phases.json", SETTINGS)
    assert found["smooth_drift_suffices"]
    assert found["test_b"]["boundaries"] == [] == found["recurrence"]["test_b"]
    assert found["sentences"][0].startswith("Smooth drift suffices")
    assert all(boundary["kind"] == "gradual" for boundary in found["test_a"]["boundaries"])


def test_logarithmic_steps_and_gaps(tmp_path):
    """Checkpoints 0, 1, 2, 4, ..., 512, 1000, 2000, ..., 69000, some of them missing; a switch at 35000."""
    steps = np.r_[0, 2 ** np.arange(10), 1000 * np.arange(1, 70)]
    kept = np.delete(np.arange(80), [20, 21, 22, 23, 61, 70, 71])
    files = write_study(tmp_path, film(4, lambda i: 0.3 if i < 45 else 0.15, steps=steps, kept=kept))
    found = run_study(files, tmp_path / "phases.json", SETTINGS)
    assert found["checkpoints"]["steps"] == steps[kept].tolist()
    for test in ("test_a", "test_b"):
        assert steps_of(found, test) == [35000]
        assert found[test]["boundaries"][0]["index"] == kept.tolist().index(45)
        assert found["recurrence"][test][0]["share"] >= 15 / 16


def test_too_few_checkpoints_are_said_to_be_too_few(tmp_path, smooth_film):
    files = write_study(tmp_path, first(smooth_film, 10))
    found = run_study(files, tmp_path / "phases.json", SETTINGS)
    for key in ("columns", "test_a", "test_b", "smooth_drift_suffices", "recurrence", "others"):
        assert found[key] is None
    assert found["sensitivity"] == found["segments"] == []
    assert found["behaviour"]["lead_lag"] is None and found["behaviour"]["agreement"] is None
    assert found["sentences"][0].startswith("Not tested for phases: 10 checkpoints are too few")


def test_few_checkpoints_have_no_lead_and_the_command_says_the_same(tmp_path, smooth_film):
    assert least_checkpoints() > 20
    files = write_study(tmp_path, first(smooth_film, 20), falling_loss(20, middle=12))
    found = run_study(files, tmp_path / "phases.json", SETTINGS)
    assert found["behaviour"]["lead_lag"] is None
    assert set(found["behaviour"]["boundaries"]) == QUANTITIES
    assert found["test_b"] is not None and found["others"] is not None
    assert "With 20 checkpoints the tests would miss all but the largest changes." in found["sentences"]
    called = subprocess.run(command(files, tmp_path / "again.json"), check=True, capture_output=True, text=True)
    assert called.stdout.splitlines() == found["sentences"]
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "phases.json").read_bytes()


def test_a_checkpoint_with_the_weights_of_the_one_before_is_left_out(tmp_path, smooth_film):
    doubled = {  # time is the first axis of what has one axis, and the second of replicates
        name: np.repeat(values, [2] + [1] * (N - 1), axis=min(values.ndim - 1, 1))
        for name, values in smooth_film.items()
    }
    doubled["steps"] = np.r_[0, 1, smooth_film["steps"][1:]]
    doubled["churn"][1] = 0.0
    doubled["blocks"][:, 1] = 0.0
    tables = read_tables(write_study(tmp_path, doubled))
    assert tables.left_out == {1: "same weights as step 0"}
    np.testing.assert_array_equal(tables.steps, smooth_film["steps"])
    np.testing.assert_array_equal(tables.levels["gini"], smooth_film["gini"])
    np.testing.assert_array_equal(tables.replicates["gini"], smooth_film["replicates.gini"])
    np.testing.assert_array_equal(list(tables.blocks.values()), np.moveaxis(smooth_film["blocks"], 2, 0))
    np.testing.assert_allclose(tables.behaviour["prefix_matching"].max(), 0.8, atol=0.1)


def test_further_quantities_of_behaviour_change_nothing(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film)
    before = read_tables(files)
    table = pl.read_parquet(files.behaviour)
    effects = table.filter(pl.col("node") == "L0H0").with_columns(estimate=9.0)
    names = ("answer_kl_total", "answer_logit_difference_total")
    further = [effects.with_columns(quantity=pl.lit(q), node=pl.lit(n)) for q in names for n in ("embed", "L0MLP")]
    pl.concat([table, *further]).write_parquet(files.behaviour)
    after = read_tables(files)
    for name in ("loss_second", "prefix_matching"):
        np.testing.assert_array_equal(after.behaviour[name], before.behaviour[name])


def test_paths_are_those_of_the_direct_effect_where_there_is_one(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film, effects=("total",))
    assert read_tables(files).path_effect == "total"
    table = pl.read_parquet(files.metrics)
    halved = table.filter(pl.col("metric").is_in(PATH_METRICS))
    halved = halved.with_columns(pl.lit("direct").alias("effect"), pl.col("estimate") / 2)
    pl.concat([table, halved]).write_parquet(files.metrics)
    tables = read_tables(files)
    assert tables.path_effect == "direct"
    np.testing.assert_array_equal(tables.levels["efficiency"], smooth_film["efficiency"] / 2)


def test_undefined_betweenness_is_left_out_by_name(tmp_path, smooth_film):
    holed = smooth_film | {"gini_betweenness": np.where(np.arange(N) < 2, np.nan, smooth_film["gini_betweenness"])}
    tables = read_tables(write_study(tmp_path, holed))
    assert tables.undefined == {"gini_betweenness": "undefined at 2 checkpoints, first at step 0"}
    assert "gini_betweenness" not in tables.levels


def test_wrong_tables_are_named(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film, drop="gini_sqrt")
    with pytest.raises(PhasegraphError, match=r"metrics.parquet has no metric gini_sqrt"):
        read_tables(files)
    files = write_study(tmp_path, smooth_film)
    with pytest.raises(PhasegraphError, match=r"absent.parquet is missing"):
        read_tables(dataclasses.replace(files, metrics=tmp_path / "absent.parquet"))
    with pytest.raises(PhasegraphError, match=r"behaviour.parquet has no column effect"):
        read_tables(dataclasses.replace(files, metrics=files.behaviour))
    manifest = files.manifest.read_text().splitlines(keepends=True)
    files.manifest.write_text("".join(manifest[:-1]))
    with pytest.raises(PhasegraphError, match=r"series.tsv: no arc_length for step 396"):
        read_tables(files)
    files.manifest.write_text("".join(manifest))
    behaviour = pl.read_parquet(files.behaviour)
    behaviour.filter((pl.col("step") != 8) | (pl.col("quantity") != "loss_second")).write_parquet(files.behaviour)
    with pytest.raises(PhasegraphError, match=r"quantity loss_second is missing at step 8"):
        read_tables(files)


def test_wrong_replicates_are_named(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film)
    for name in ("blocks", "replicates"):
        with pytest.raises(PhasegraphError, match=r"absent.npz is missing"):
            read_tables(dataclasses.replace(files, **{name: tmp_path / "absent.npz"}))
    with pytest.raises(PhasegraphError, match=r"blocks.npz has no total.gini"):
        read_tables(dataclasses.replace(files, replicates=files.blocks))
    other = tmp_path / "other"
    other.mkdir()
    shorter = write_study(other, first(smooth_film, 99))
    with pytest.raises(PhasegraphError, match=r"blocks.npz is of other checkpoints than metrics.parquet"):
        read_tables(dataclasses.replace(files, blocks=shorter.blocks))


def test_truncated_replicates_are_named(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film)
    files.blocks.write_bytes(files.blocks.read_bytes()[:1000])
    with pytest.raises(PhasegraphError, match=r"blocks.npz is missing or damaged"):
        read_tables(files)


def test_a_user_mistake_is_one_line(tmp_path, smooth_film):
    files = write_study(tmp_path, smooth_film)
    files.blocks.unlink()
    result = subprocess.run(command(files, tmp_path / "phases.json"), capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "blocks.npz is missing" in result.stderr
    assert not (tmp_path / "phases.json").exists()


def test_json_holds_no_nan_and_six_digits():
    value = {"a": np.array([1 / 3, np.nan, np.inf]), "b": (np.int64(3), np.bool_(True), None), "c": "x"}
    assert plain(value) == {"a": [0.333333, None, None], "b": [3, True, None], "c": "x"}
