"""Boundaries of several seeds against each other: counted by hand, by brute force, and in words (about 2 seconds)."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from phasegraph.errors import PhasegraphError
from phasegraph.phases.behaviour import NEAR, circular_shift_p
from phasegraph.phases.seeds import at_least, compare_seeds, run_seeds
from phasegraph.report.seeds import seeds_table, seeds_texts

STEPS = range(0, 400, 4)


def found(a=(), b=(), steps=STEPS, half=200, **settings) -> dict:
    """What phases.json says of a study with boundaries at these steps; None for a test that was not made."""
    steps = list(steps)

    def test(places, kind):
        if places is None:
            return None
        boundaries = [
            {"step": s, "index": steps.index(s), "p_value": 0.002, "interval_steps": [s - 4, s], "kind": kind}
            for s in places
        ]
        return {"boundaries": boundaries, "p_values": [0.002]}

    change = half and {"start": half - 20, "half": half, "end": half + 20, "plateau": 4.0, "final": 0.2}
    return {
        "settings": {"alpha": 0.01, "min_size": 5} | settings,
        "checkpoints": {"n": len(steps), "steps": steps},
        "test_a": test(a, "gradual"),
        "test_b": test(b, "abrupt"),
        "behaviour": {"transition": change or None},
    }


def shares(compared: dict, study: str, test: str = "test_a") -> list[float]:
    return [row["share"] for row in compared["recurrence"][study][test]]


# --- what is near -----------------------------------------------------------------------------------------------------
def test_shares_counted_by_hand():
    """Five checkpoints are 20 steps: 24 and 44 are near each other, 24 and 48 are not."""
    compared = compare_seeds(
        {
            "one": found(a=[24, 200], b=[200]),
            "two": found(a=[44]),
            "three": found(a=[48, 220, 320], b=[196]),
            "four": found(),
        }
    )
    assert shares(compared, "one") == pytest.approx([1 / 3, 1 / 3], rel=1e-5)
    assert shares(compared, "two") == pytest.approx([2 / 3], rel=1e-5)
    assert shares(compared, "three") == pytest.approx([1 / 3, 1 / 3, 0], rel=1e-5)
    assert [row["step"] for row in compared["recurrence"]["three"]["test_a"]] == [48, 220, 320]
    assert [row["places"] for row in compared["recurrence"]["one"]["test_a"]] == [[44, None, None], [None, 220, None]]
    assert shares(compared, "one", "test_b") == shares(compared, "three", "test_b") == pytest.approx([1 / 3], rel=1e-5)
    assert compared["recurrence"]["four"] == {"test_a": [], "test_b": []}
    assert compared["near_checkpoints"] == NEAR == 5 and compared["left_out"] == []


def test_the_nearest_of_several_places_is_given():
    compared = compare_seeds({"one": found(a=[100]), "two": found(a=[84, 108, 116])})
    assert compared["recurrence"]["one"]["test_a"][0]["places"] == [108]


def test_checkpoints_are_those_of_the_study_whose_boundary_it_is():
    """Steps 104 and 144 are ten checkpoints of four steps apart, and five of eight."""
    compared = compare_seeds({"fine": found(a=[104]), "coarse": found(a=[144], steps=range(0, 400, 8))})
    assert shares(compared, "coarse") == [1] and shares(compared, "fine") == [0]


@pytest.mark.parametrize(("step", "share"), [(28, 0), (32, 1), (68, 1), (72, 0)])
def test_a_step_between_two_checkpoints_has_its_place_between_them(step, share):
    """Step 50 lies half-way between checkpoints 12 and 13, 48 and 52."""
    compared = compare_seeds({"own": found(a=[step]), "other": found(a=[50], steps=range(0, 400, 10))})
    assert shares(compared, "own") == [share]


def test_a_boundary_after_the_last_checkpoint_is_near_none():
    longer = found(a=[404], steps=range(0, 800, 4))
    assert shares(compare_seeds({"own": found(a=[392]), "longer": longer}), "own") == [0]
    assert shares(compare_seeds({"own": found(a=[392]), "longer": found(a=[396])}), "own") == [1]


# --- chance -----------------------------------------------------------------------------------------------------------
def test_chance_is_that_of_all_shifts_by_brute_force():
    """All 24 x 12 x 30 combinations of shifts of three other studies with checkpoints of their own."""
    grids = [range(0, 100, 4), range(0, 104, 8), range(2, 157, 5)]
    planted = [[24, 60], [40], [12, 52, 77]]
    own, others = found(a=[20, 64, 80], steps=range(0, 100, 4)), zip(planted, grids, strict=True)
    others = {f"other{i}": found(a=places, steps=grid) for i, (places, grid) in enumerate(others)}
    compared = compare_seeds({"own": own} | others)
    for row, chance in zip(compared["recurrence"]["own"]["test_a"], compared["chance"]["own"]["test_a"], strict=True):
        near = []  # for each other study, whether each of its shifts has a boundary near
        for places, grid in zip(planted, grids, strict=True):
            may_be = list(grid)[1:]  # no boundary is at the first checkpoint
            near.append(
                [
                    any(
                        0 <= s <= 96 and abs(s - row["step"]) <= 4 * NEAR  # evenly spaced: steps measure checkpoints
                        for s in (may_be[(may_be.index(place) + shift) % len(may_be)] for place in places)
                    )
                    for shift in range(len(may_be))
                ]
            )
        counts = np.array([sum(one) for one in itertools.product(*near)])
        assert chance == pytest.approx(counts.mean() / 3, rel=1e-5)
        assert row["p_value"] == pytest.approx((counts >= 3 * row["share"] - 1e-3).mean(), rel=1e-5)


def test_chance_of_one_boundary_in_one_other_is_that_of_the_shifts_of_behaviour():
    compared = compare_seeds({"one": found(a=[100]), "two": found(a=[112])})
    matches, p_value = circular_shift_p([112 // 4 - 1], [100 // 4 - 1], len(STEPS) - 1)
    assert matches == 1
    assert compared["chance"]["one"]["test_a"] == [pytest.approx(p_value, rel=1e-5)]
    assert compared["recurrence"]["one"]["test_a"][0]["p_value"] == pytest.approx(p_value, rel=1e-5)


def test_unrelated_seeds_share_what_chance_gives():
    """Boundaries drawn anywhere: over 60 sets of five studies the shares average the chance level."""
    rng = np.random.default_rng(0)
    given, expected, p_values = [], [], []
    for _ in range(60):
        sets = [found(a=sorted(rng.choice(STEPS[1:], 2, replace=False).tolist())) for _ in range(5)]
        compared = compare_seeds({f"seed{i}": one for i, one in enumerate(sets)})
        for study in compared["studies"]:
            given += shares(compared, study)
            expected += compared["chance"][study]["test_a"]
            p_values += [row["p_value"] for row in compared["recurrence"][study]["test_a"]]
    assert np.mean(given) == pytest.approx(np.mean(expected), abs=0.02)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05  # discrete, so below


def test_seeds_with_a_common_boundary_are_beyond_chance():
    compared = compare_seeds({f"seed{i}": found(a=[200 + 4 * (i % 4)]) for i in range(10)})
    for study in compared["studies"]:
        row, chance = compared["recurrence"][study]["test_a"][0], compared["chance"][study]["test_a"][0]
        assert row["share"] == 1 and chance == pytest.approx(11 / 99, rel=1e-5)
        assert row["p_value"] == pytest.approx((11 / 99) ** 9, rel=1e-4)


def test_the_tail_of_independent_events():
    probabilities = [0.1, 0.5, 0.9, 0.25]
    for count in range(5):
        brute = sum(
            np.prod([p if happens else 1 - p for p, happens in zip(probabilities, events, strict=True)])
            for events in itertools.product([0, 1], repeat=4)
            if sum(events) >= count
        )
        assert at_least(count, probabilities) == pytest.approx(brute)


# --- studies that were not tested -------------------------------------------------------------------------------------
def test_a_study_with_too_few_checkpoints_is_named_and_not_counted():
    tested = {"one": found(a=[100]), "two": found(a=[104])}
    short = found(a=None, b=None, steps=range(0, 12, 4))
    compared = compare_seeds({"one": tested["one"], "short": short, "two": tested["two"]})
    alone = compare_seeds(tested)
    assert compared["left_out"] == ["short"]
    assert (compared["recurrence"], compared["chance"]) == (alone["recurrence"], alone["chance"])
    assert compared["seeds"][1]["test_a"] is None and compared["seeds"][1]["n"] == 3
    assert "Too few checkpoints to be tested, and not counted: short." in compared["sentences"]
    assert "The boundaries of 2 studies" in compared["sentences"][0]


def test_one_tested_study_has_nothing_to_be_compared_with():
    compared = compare_seeds({"one": found(a=[100]), "short": found(a=None, b=None, steps=range(0, 12, 4))})
    assert compared["recurrence"] == compared["chance"] == {}
    assert any("Nothing can be said of what seeds have in common" in sentence for sentence in compared["sentences"])


# --- words ------------------------------------------------------------------------------------------------------------
def test_sentences():
    first, a, shared, b, behaviour = compare_seeds(
        {"one": found(a=[100], half=180), "two": found(a=[104, 300], half=0), "three": found(half=220)}
    )["sentences"]
    assert first == "The boundaries of 3 studies that differ in their series alone are compared: one, two and three."
    assert a.startswith("Test A finds 3 boundaries, in 2 of 3 seeds; one of them is found again, within 5 checkpoints,")
    assert "in 33 % of the other seeds on average" in a  # 1 / 2, 1 / 2 and none
    # Of the two others of each: one study has no boundary, one has 1 or 2, with 11 or 22 of 99 shifts near.
    assert f"against {100 * (22 / 99 / 2 + 11 / 99 / 2 * 2) / 3:.0f} % by chance" in a
    assert shared == "Most widely shared is the one of one at step 100: 1 of the 2 others have one near it."
    assert b == "Test B finds no boundary in any of them; smooth drift suffices in each."
    assert "is dated in 2 of 3 seeds" in behaviour and "between steps 180 and 220" in behaviour


def test_few_checkpoints_are_said():
    few = found(a=[40], steps=range(0, 80, 4))
    said = compare_seeds({"many": found(), "few": few})["sentences"]
    assert "With fewer than 30 checkpoints, as of few, the tests would miss all but the largest changes." in said
    assert not any("fewer than" in line for line in compare_seeds({"one": found(), "two": found()})["sentences"])


def test_the_report_of_a_member():
    compared = compare_seeds({"one": found(a=[100], b=[100]), "two": found(a=[104]), "three": found(half=0)})
    own = seeds_texts(compared, "one")[len(compared["sentences"]) :]
    assert own[0].startswith(
        "This study's boundary of test A at step 100 has one near it in 1 of 2 other seeds, at step 104;"
    )
    assert "by chance it would be 6 % of them" in own[0]
    assert own[1].startswith(
        "This study's boundary of test B at step 100 has one near it in 0 of 2 other seeds; by chance"
    )
    assert seeds_texts(compared, "three") == compared["sentences"]
    table = seeds_table(compared)
    assert [row[3] for row in table.rows] == ["100 (96–100)", "104 (100–104)", "none"]
    assert [row[5] for row in table.rows] == ["180–220", "180–220", "none dated"]
    assert seeds_texts(None, "one") == [] and seeds_table(None) is None


# --- files and refusals -----------------------------------------------------------------------------------------------
@pytest.fixture
def files(tmp_path):
    """Write phases.json of two studies."""
    for name, contents in (("one", found(a=[100])), ("two", found(a=[104]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "phases.json").write_text(json.dumps(contents))
    return [tmp_path / name / "phases.json" for name in ("one", "two")]


def test_the_command_writes_what_the_function_gives(files, tmp_path):
    out = tmp_path / "sets" / "pair" / "seeds.json"
    command = [sys.executable, "-m", "phasegraph.phases.seeds", "--phases", *map(str, files), "--names", "one", "two"]
    command += ["--series", "s1", "s2", "--seeds", "7", "none", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    written = json.loads(out.read_text())
    assert written == run_seeds(files, ["one", "two"], tmp_path / "sets/pair/again.json", ["s1", "s2"], [7, None])
    assert written["set"] == "pair"
    assert [(seed["study"], seed["series"], seed["seed"]) for seed in written["seeds"]] == [
        ("one", "s1", 7),
        ("two", "s2", None),
    ]
    assert written["recurrence"] == compare_seeds({"one": found(a=[100]), "two": found(a=[104])})["recurrence"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["one"], {}, "--names: 1 for 2 files; give one for each of --phases"),
        (["one", "two"], {"seeds": [1]}, "--seeds: 1 for 2 files"),
        (["one", "one"], {}, "--names: one, one; give two studies or more, each once"),
    ],
)
def test_names_must_fit(files, tmp_path, names, options, message):
    with pytest.raises(PhasegraphError, match=message) as error:
        run_seeds(files, names, tmp_path / "seeds.json", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "seeds.json").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("{", r"two/phases\.json is missing or damaged; run the phases stage again"),
        ("{}", r"phases\.json of two: not what this version writes .*run the phases stage again"),
        (json.dumps(found(alpha=0.05)), r"of two: made with alpha: 0\.05 and that of one with alpha: 0\.01; test both"),
    ],
)
def test_a_file_that_cannot_be_is_one_line_that_names_it(files, tmp_path, contents, message):
    files[1].write_text(contents)
    with pytest.raises(PhasegraphError, match=message) as error:
        run_seeds(files, ["one", "two"], tmp_path / "seeds.json")
    assert "\n" not in str(error.value)


def test_a_boundary_that_is_not_at_its_step_is_refused():
    wrong = found(a=[104])
    wrong["test_a"]["boundaries"][0]["index"] += 1
    with pytest.raises(PhasegraphError, match=r"phases\.json of two: not what this version writes"):
        compare_seeds({"one": found(), "two": wrong})
