"""A study on some of its series' checkpoints, and its comparison with a study of other prompts (about a minute)."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from runs import FAN_IN, ROOT, finished_run, refused, to_do
from snakemake.utils import validate

from phasegraph.config import part_of, plans, steps_of_studies
from phasegraph.errors import PhasegraphError
from phasegraph.report.study import StudyData

CONFIG = """
series:
  tiny:
    recipe: { layers: 2, heads: 2, d_model: 16, d_mlp: 32, vocab: 16, steps: 20, warmup: 4, batch: 4, period_max: 5 }
    steps: [0, 4, 8, 12, 16, 20]
studies:
  uniform:
    series: tiny
    task: { prompts: 16, reference: 4, segment: 5 }
    direct: false
    phases: { bootstraps: 99, min_size: 2 }
    compare_with: structured
  structured:
    series: tiny
    steps: [0, 12, 20]
    task: { tokens: structured, prompts: 16, reference: 4, segment: 5 }
    direct: false
    phases: { bootstraps: 99, min_size: 2 }
"""
STEPS = [0, 4, 8, 12, 16, 20]
SOME = [0, 12, 20]


def settings(**changed) -> dict:
    """The configuration with its defaults; `changed` are keys of its studies, a study's name before them."""
    config = yaml.safe_load(CONFIG)
    for key, value in changed.items():
        study, _, name = key.partition("_")
        config["studies"][study][name] = value
    validate(config, str(ROOT / "workflow/schemas/config.schema.yaml"))
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests that change it work on copies."""
    return finished_run(tmp_path_factory.mktemp("run") / "phasegraph", CONFIG, "families.yaml")


def test_each_study_has_its_own_checkpoints(finished):
    for study, steps in (("uniform", STEPS), ("structured", SOME)):
        folder = finished / "results" / study
        assert sorted(int(file.stem) for file in (folder / "edges").glob("*.npy")) == steps
        for table in ("metrics", "roles", "behaviour"):
            assert sorted(pl.read_parquet(folder / f"{table}.parquet")["step"].unique()) == steps
    manifest = finished / "results/series/tiny/series.tsv"
    assert pl.read_csv(manifest, separator="\t")["step"].to_list() == STEPS
    config = yaml.safe_load((finished / "results/uniform/run_config.yaml").read_text())
    assert set(config["studies"]) == {"uniform", "structured"}  # it can be run again


def test_rates_are_taken_over_the_whole_way_between_the_checkpoints_of_the_study(finished):
    manifest = finished / "results/series/tiny/series.tsv"
    way = pl.read_csv(manifest, separator="\t")["displacement"].to_list()  # null, to 4, to 8, to 12, to 16, to 20
    some, all_ = (StudyData(finished / "results" / name, manifest) for name in ("structured", "uniform"))
    np.testing.assert_allclose(some.moved, [np.nan, sum(way[1:4]), sum(way[4:])])
    np.testing.assert_allclose(all_.moved, [np.nan, *way[1:]])


def test_a_study_of_few_checkpoints_says_that_it_is_not_tested(finished):
    phases = json.loads((finished / "results/structured/phases.json").read_text())
    assert phases["test_a"] is None
    assert phases["checkpoints"]["dropped"] == []  # what a study does not look at is not missing
    assert phases["sentences"][0].startswith("Not tested for phases: 3 checkpoints are too few")
    page = (finished / "results/structured/report.html").read_text()
    assert "6 checkpoints that count; this study looks at 3 of them" in page
    assert "Phases were not tested: 3 checkpoints are too few" in page


def test_the_families_are_compared_at_common_checkpoints(finished):
    table = pl.read_parquet(finished / "results/uniform/families.parquet")
    assert table["step"].unique(maintain_order=True).to_list() == SOME
    shares = table.filter((pl.col("scale") == "w") & (pl.col("quantity") != "between_families"))
    np.testing.assert_allclose(shares.group_by("step").agg(pl.col("estimate").sum())["estimate"], 1)
    assert not (finished / "results/structured/families.parquet").exists()


def test_nothing_is_left_to_do(finished):
    assert to_do(finished, config="families.yaml") == Counter()


def test_one_more_step_of_a_study_is_measured_alone(copy):
    config = copy / "families.yaml"
    config.write_text(CONFIG.replace("[0, 12, 20]", "[0, 4, 12, 20]"))
    chain = Counter(measure_edges=1, measure_network=1, list_nodes=1)
    both = Counter(compare_families=1, draw_figure=1, write_config=2, write_report=1)  # the other one's report
    assert to_do(copy, config="families.yaml") == chain + FAN_IN + both
    config.write_text(CONFIG.replace("[0, 12, 20]", "[0, 20]"))
    assert to_do(copy, config="families.yaml") == Counter(list_nodes=1) + FAN_IN + both


def test_other_prompts_rerun_their_study_alone(copy):
    config = copy / "families.yaml"
    config.write_text(CONFIG.replace("tokens: structured, ", "tokens: structured, seed: 1, "))
    chain = Counter(measure_edges=len(SOME), measure_network=len(SOME))
    both = Counter(compare_families=1, draw_figure=1, write_config=2, write_report=1)
    assert to_do(copy, config="families.yaml") == chain + FAN_IN + both


def test_a_mistake_is_one_line_before_anything_runs(tmp_path):
    said = refused(tmp_path / "new", CONFIG.replace("[0, 12, 20]", "[0, 13]"))
    assert "studies.structured.steps: the series tiny has no step 13; choose among its 6 steps" in said


# --- what the configuration means -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("all", STEPS),
        ([20, 4], [4, 20]),
        ({"start": 4, "stop": 20, "every": 8}, [4, 12, 20]),
        ({"start": 8, "stop": 16, "every": 8, "also": [0, 20]}, [0, 8, 16, 20]),
    ],
)
def test_steps_of_a_study_come_in_the_forms_of_a_series(steps, expected):
    config = settings(structured_steps=steps)
    assert steps_of_studies(config, plans(config)) == {"uniform": STEPS, "structured": expected}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"structured_steps": [0, 2]}, r"studies\.structured\.steps: the series tiny has no step 2; "),
        ({"structured_steps": "pythia"}, r"studies\.structured\.steps: the series tiny has no step 1; "),
        ({"uniform_compare_with": "other"}, r"uniform\.compare_with: there is no study 'other'; there is uniform, st"),
        ({"uniform_compare_with": "uniform"}, r"uniform\.compare_with: a study cannot be compared with itself"),
        ({"structured_measure": "cosine"}, r'uniform\.compare_with: structured has measure: "cosine" and uniform has'),
        ({"structured_intervention": "zero"}, r'compare_with: structured has intervention: "zero" and'),
        ({"structured_direct": True}, r"compare_with: structured has direct: true and uniform has direct: false; "),
        (
            {"structured_nodes": {"embed": True}},
            r'compare_with: structured has nodes: {"embed": true, "logits": false}',
        ),
        ({"uniform_steps": [4], "structured_steps": [0]}, r"compare_with: structured looks at no step that uniform"),
    ],
)
def test_a_study_that_cannot_be_is_one_line_that_names_the_key(changed, message):
    config = settings(**changed)
    with pytest.raises(PhasegraphError, match=message) as error:
        steps_of_studies(config, plans(config))
    assert "\n" not in str(error.value)


def test_studies_of_other_series_or_of_the_same_prompts_are_not_compared():
    config = settings()
    config["series"]["other"] = config["series"]["tiny"]
    config["studies"]["structured"]["series"] = "other"
    with pytest.raises(PhasegraphError, match='compare_with: structured has series: "other" and uniform has series'):
        steps_of_studies(config, plans(config))
    config = settings()
    config["studies"]["structured"]["task"] = config["studies"]["uniform"]["task"]
    with pytest.raises(PhasegraphError, match="compare_with: structured has the same prompts; give it another task"):
        steps_of_studies(config, plans(config))


def test_a_comparison_changes_no_measurement_and_belongs_to_the_configuration():
    config = settings(structured_compare_with="uniform")  # both ways
    steps_of_studies(config, plans(config))
    assert set(json.loads(part_of(config, "structured"))["studies"]) == {"uniform", "structured"}
    assert set(json.loads(part_of(settings(), "structured"))["studies"]) == {"structured"}
