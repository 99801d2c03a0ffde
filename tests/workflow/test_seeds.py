"""A set of studies, the same training from two seeds, beside a study of no set (about a minute)."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from runs import FIGURES, ROOT, copy_of_repository, finished_run, refused, times, to_do
from snakemake.utils import validate

from phasegraph.config import part_of, plans, sets_of_studies, steps_of_studies
from phasegraph.errors import PhasegraphError
from phasegraph.report.catalogue import FIGURES as CATALOGUE

CONFIG = """
series:
  one: &series
    recipe: &recipe
      { seed: 1, layers: 2, heads: 2, d_model: 16, d_mlp: 32, vocab: 16, steps: 20, warmup: 4, batch: 4, period_max: 5 }
    steps: { start: 0, stop: 20, every: 2 }
  two: { <<: *series, recipe: { <<: *recipe, seed: 2 } }
studies:
  first: &study
    series: one
    task: { prompts: 16, reference: 4, segment: 5 }
    direct: false
    network: { nulls: 0 }
    phases: { bootstraps: 99, min_size: 2 }
  second: { <<: *study, series: two }
  alone: { <<: *study, measure: cosine }
sets:
  pair: [first, second]
"""
SEEDS = "results/sets/pair/seeds.json"
IN_FIGURES = sum(bool(figure.set_files) for figure in CATALOGUE.values())
"""Number of figures that show a study's set."""


def settings(sets=None, **changed) -> dict:
    """The configuration with its defaults; `changed` are keys of the study second."""
    config = yaml.safe_load(CONFIG)
    config["studies"]["second"] |= changed
    config["sets"] = config["sets"] if sets is None else sets
    validate(config, str(ROOT / "workflow/schemas/config.schema.yaml"))
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests that change it work on copies."""
    return finished_run(tmp_path_factory.mktemp("run") / "phasegraph", CONFIG, "seeds.yaml")


def shown(studies: int) -> Counter:
    """The jobs that show a set in some of its studies."""
    return times(Counter(draw_figure=IN_FIGURES, write_report=1), studies)


def test_a_set_compares_what_its_studies_found(finished):
    compared = json.loads((finished / SEEDS).read_text())
    assert (compared["set"], compared["studies"], compared["left_out"]) == ("pair", ["first", "second"], [])
    for seed, series, number in zip(compared["seeds"], ("one", "two"), (1, 2), strict=True):
        phases = json.loads((finished / "results" / seed["study"] / "phases.json").read_text())
        assert (seed["series"], seed["seed"], seed["n"]) == (series, number, phases["checkpoints"]["n"])
        for test in ("test_a", "test_b"):
            steps = [boundary["step"] for boundary in phases[test]["boundaries"]]
            assert [boundary["step"] for boundary in seed[test]] == steps
            assert [row["step"] for row in compared["recurrence"][seed["study"]][test]] == steps


def test_the_pages_of_its_studies_show_it_and_no_other(finished):
    sentences = json.loads((finished / SEEDS).read_text())["sentences"]
    for study, member in (("first", True), ("second", True), ("alone", False)):
        page = (finished / "results" / study / "report.html").read_text()
        assert ("<h2>Other seeds</h2>" in page) == member
        assert ("../sets/pair/seeds.json" in page) == member
        assert (sentences[0] in page) == member
        config = yaml.safe_load((finished / "results" / study / "run_config.yaml").read_text())
        assert config.get("sets") == ({"pair": ["first", "second"]} if member else None)
        assert set(config["studies"]) == ({"first", "second"} if member else {"alone"})


def test_nothing_is_left_to_do(finished):
    assert to_do(finished, config="seeds.yaml") == Counter()


def test_a_set_is_compared_again_if_what_one_of_its_studies_found_has_changed(copy):
    phases = copy / "results/second/phases.json"
    text = phases.read_text()
    phases.write_text(text)  # touched
    assert to_do(copy, config="seeds.yaml") == Counter()
    phases.write_text(text.replace('"alpha": 0.01', '"alpha": 0.02'))
    own = Counter(draw_figure=FIGURES, write_report=1)
    assert to_do(copy, config="seeds.yaml") == Counter(compare_seeds=1) + own + shown(1)


def test_a_study_of_no_set_is_no_reason(copy):
    phases = copy / "results/alone/phases.json"
    phases.write_text(phases.read_text().replace('"alpha": 0.01', '"alpha": 0.02'))
    assert to_do(copy, config="seeds.yaml") == Counter(draw_figure=FIGURES, write_report=1)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("phases/seeds.py", Counter(compare_seeds=1) + shown(2)),
        ("phases/seed_sentences.py", Counter(compare_seeds=1) + shown(2)),
        (
            "phases/labels.py",
            times(Counter(find_phases=1, draw_figure=FIGURES, write_report=1), 3) + Counter(compare_seeds=1),
        ),
        ("report/seeds.py", Counter(write_report=3)),
    ],
)
def test_an_edited_module_compares_again_if_it_is_used(copy, module, expected):
    path = copy / "workflow/phasegraph" / module
    path.write_text(path.read_text() + "\n# edited\n")
    assert to_do(copy, config="seeds.yaml") == expected


def test_without_the_set_only_the_pages_change(copy):
    (copy / "seeds.yaml").write_text(CONFIG.partition("sets:")[0])
    assert to_do(copy, config="seeds.yaml") == shown(2) + Counter(write_config=2)


def test_the_studies_of_a_set_are_jobs_of_their_own_on_a_cluster(finished, tmp_path):
    """Snakemake refuses groups that wait for themselves, when it plans."""
    folder = copy_of_repository(tmp_path / "new")
    (folder / "seeds.yaml").write_text(CONFIG)
    jobs = to_do(folder, "--workflow-profile", "profiles/slurm", config="seeds.yaml")
    assert (jobs["compare_seeds"], jobs["find_phases"], jobs["write_report"]) == (1, 3, 3)


# --- what the configuration means -------------------------------------------------------------------------------------
def test_studies_belong_to_their_set():
    assert sets_of_studies(settings()) == {"first": "pair", "second": "pair"}
    assert sets_of_studies(settings(sets={})) == {}


def test_steps_nulls_and_comparisons_may_differ():
    config = settings(steps=[0, 8, 20], network={"nulls": 19})
    assert steps_of_studies(config, plans(config))["second"] == [0, 8, 20]
    assert sets_of_studies(config) == {"first": "pair", "second": "pair"}


@pytest.mark.parametrize(
    ("sets", "changed", "message"),
    [
        ({"pair": ["first", "third"]}, {}, r"sets\.pair: there is no study 'third'; there is first, second, alone"),
        ({"alone": ["first", "second"]}, {}, r"sets\.alone: there is a study alone; give the set another name"),
        (
            {"pair": ["first", "second"], "again": ["second", "first"]},
            {},
            r"sets\.again: second belongs to the set pair too; leave it out of one",
        ),
        ({"pair": ["first", "alone"]}, {}, r"sets\.pair: first and alone are of one series, one; take one study of"),
        (None, {"measure": "cosine"}, r'pair: first has measure: "variance" and second has measure: "cosine"; let not'),
        (None, {"task": {"prompts": 32}}, r"sets\.pair: first has task: {.*} and second has task: {.*}; let nothing"),
        (None, {"direct": True}, r"sets\.pair: first has direct: false and second has direct: true; "),
        (None, {"phases": {"alpha": 0.05}}, r"sets\.pair: first has phases: {.*} and second has phases: {.*}; "),
    ],
)
def test_a_set_that_cannot_be_is_one_line_that_names_it(sets, changed, message):
    with pytest.raises(PhasegraphError, match=message) as error:
        sets_of_studies(settings(sets=sets, **changed))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sets", [{"pair": ["first"]}, {"pair": ["first", "first"]}, {"a/b": ["first", "second"]}, {"pair": "first"}]
)
def test_a_set_is_a_list_of_two_studies_or_more_under_the_name_of_a_file(sets):
    with pytest.raises(Exception, match="sets"):
        settings(sets=sets)


def test_no_study_takes_the_folder_of_the_sets():
    config = yaml.safe_load(CONFIG)
    config["studies"]["sets"] = config["studies"]["alone"]
    with pytest.raises(Exception, match="sets"):
        validate(config, str(ROOT / "workflow/schemas/config.schema.yaml"))


def test_a_mistake_is_one_line_before_anything_runs(tmp_path):
    said = refused(tmp_path / "new", CONFIG.replace("[first, second]", "[first, third]"))
    assert "sets.pair: there is no study 'third'; there is first, second, alone" in said


def test_the_configuration_of_a_study_can_be_run_again():
    config = settings()
    config["studies"]["first"]["compare_with"] = "alone"
    for study, studies, series in (
        ("second", {"first", "second", "alone"}, {"one", "two"}),
        ("alone", {"alone"}, {"one"}),
    ):
        part = json.loads(part_of(config, study))
        assert (set(part["studies"]), set(part["series"])) == (studies, series)
        validate(part, str(ROOT / "workflow/schemas/config.schema.yaml"))
        sets_of_studies(part)
