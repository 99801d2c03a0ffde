"""What the report shows and says of phases: the two figures of evidence, tables and sentences, all planted (25 s)."""

import json

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from figure_texts import check_texts
from matplotlib.collections import LineCollection, QuadMesh
from planted_phases import COUNT, TWO, boundary, leading, planted_phases, untested

from phasegraph.errors import PhasegraphError
from phasegraph.report import sentences, style, tables
from phasegraph.report.evidence import rate_steps
from phasegraph.report.figures import evidence, recurrence
from phasegraph.report.study import StudyData

STEPS = 4 * np.arange(COUNT)
PYTHIA = np.array([0, *(2**i for i in range(10)), *range(1000, 144000, 1000)])
DOUBLING = np.array([0, *(2**i for i in range(18)), 143000])


def write_study(folder, phases, steps=STEPS, seeds=None):
    """What the two figures are drawn from."""
    folder.mkdir(parents=True)
    (folder / "phases.json").write_text(json.dumps(phases))
    columns = dict.fromkeys(("estimate", "corrected", "low", "high"), 0.5)
    table = pl.DataFrame({"step": steps}).with_columns(effect=pl.lit("total"), metric=pl.lit("gini"))
    table.with_columns(**{name: pl.lit(value) for name, value in columns.items()}).write_parquet(
        folder / "metrics.parquet"
    )
    path = None
    if seeds is not None:
        path = folder / "seeds.json"
        path.write_text(json.dumps({"seeds": seeds}))
    return StudyData(folder, folder / "series.tsv", path)


def at(steps, place, p_value=0.0001, kind="abrupt", width=2):
    """A boundary at a place among these steps, with an interval that ends with the run."""
    low, high = max(place - width, 1), min(place + width, len(steps) - 1)
    found = boundary(int(steps[place]), int(steps[low]), int(steps[high]), p_value, kind)
    return found | {"index": place}


def many(steps, places_a, places_b, **options):
    kinds = ("gradual", "abrupt")
    a = [at(steps, place, kind=kinds[i % 2]) for i, place in enumerate(places_a)]
    b = [at(steps, place, p_value=0.00099) for place in places_b]
    return planted_phases(a, b, n=len(steps), steps=steps, limit=14, **options), steps


CASES = {
    "two": (TWO, STEPS),
    "none": (planted_phases(), STEPS),
    "one": (planted_phases(a=[boundary(76, 60, 92)], transition=None), STEPS),
    "ends": many(STEPS, [1, COUNT - 1], [COUNT - 1]),
    "twelve": many(STEPS, range(2, 38, 3), range(1, COUNT, 5)),
    "pythia": many(PYTHIA, [7, 30, 34, 140], [30, 140, 150], transition=(1000, 3000, 9000)),
    "doubling": many(DOUBLING, [5, 11, 12], [11, 14], transition=(512, 1024, 2048)),
    "untested": (untested(), STEPS[:6]),
    "alone": (untested(1), STEPS[:1]),
}


def seeds_of(phases, names):
    """The same boundaries in every seed, the first of each test left out in the second."""
    return [
        {
            "study": name,
            "series": name,
            "seed": number,
            "n": phases["checkpoints"]["n"],
            **{test: phases[test] and phases[test]["boundaries"][number % 2 :] for test in ("test_a", "test_b")},
            "transition": phases["behaviour"]["transition"],
        }
        for number, name in enumerate(names)
    ]


def panel(figure, title):
    return next(axes for axes in figure.axes if title in [text.get_text() for text in axes.texts])


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


# --- both figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("names", [[], ["study", "pythia-14m-seed1", "seed-2"]])
def test_no_text_of_recurrence_is_small_cut_or_overlaps(tmp_path, case, names):
    phases, steps = CASES[case]
    study = write_study(tmp_path / "study", phases, steps, seeds_of(phases, names) if names else None)
    check_texts(recurrence.draw(study))


@pytest.mark.parametrize("case", CASES)
def test_no_text_of_evidence_is_small_cut_or_overlaps(tmp_path, case):
    check_texts(evidence.draw(write_study(tmp_path / "study", *CASES[case])))


def test_untested_studies_say_so(tmp_path):
    for name, module in (("Boundaries by method", evidence), ("Without one group of prompts", recurrence)):
        study = write_study(tmp_path / name, untested(), STEPS[:6])
        assert "not tested: 6 checkpoints are too few" in texts_of(panel(module.draw(study), name))
    alone = write_study(tmp_path / "alone", untested(1), STEPS[:1])
    assert "not tested: 1 checkpoint is too few" in texts_of(evidence.draw(alone).axes[0])


# --- evidence ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return evidence.draw(write_study(tmp_path_factory.mktemp("evidence") / "study", TWO))


def test_every_step_of_the_searches_has_its_gains(drawn):
    assert [texts_of(axes)[1] for axes in drawn.axes[:3]] == [f"Test A, boundary {k}" for k in (1, 2, 3)]
    for test, name in (("test_a", "Test A"), ("test_b", "Test B")):
        for number, step in enumerate(TWO[test]["search"], start=1):
            axes = panel(drawn, f"{name}, boundary {number}")
            line, dot = axes.lines
            known = dict(zip(*line.get_data(), strict=True))
            assert {x: y for x, y in known.items() if y == y} == dict(zip(step["steps"], step["gains"], strict=True))
            lost = set(TWO[test]["search"][0]["steps"]) - set(step["steps"])
            assert {x for x, y in known.items() if y != y} == lost  # a gap, and no line across it
            assert dot.get_data() == ([step["best_step"]], [max(step["gains"])])
            colour = evidence.FOUND if step["p_value"] <= 0.01 else style.GREY
            assert line.get_color() == dot.get_color() == colour
            assert f"p\u00a0=\u00a0{step['p_value']:.2g} at {step['best_step']}" in texts_of(axes)
            bands = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches]
            assert bands == [(30.5, 50.5), (50.5, 60.5), (60.5, 80.5)]
            assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > max(step["gains"])


def test_long_searches_are_cut(tmp_path):
    study = write_study(tmp_path / "study", *CASES["twelve"])
    names = [text for axes in evidence.draw(study).axes for text in texts_of(axes)]
    assert "Test A, boundary 8" in names and "Test A, boundary 9" not in names


def test_searches_share_a_row_if_they_fit(tmp_path):
    phases = planted_phases(a=[boundary(76, 60, 92)])
    a1, a2, b1, _ = evidence.draw(write_study(tmp_path / "study", phases)).axes
    assert a1.get_position().y0 == a2.get_position().y0 == b1.get_position().y0


def test_boundaries_of_all_methods_are_on_one_axis(drawn):
    axes = panel(drawn, "Boundaries by method")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["Test A", "Test B", "PELT", "KernelCPD", "Gaussian HMM, 2 states"]
    rows = {}
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            for segment in lines.get_segments():
                rows.setdefault(labels[round(segment[:, 1].mean())], set()).add(segment[0, 0])
    assert rows == {"Test A": {24, 76}, "Test B": {24}, "PELT": {32, 80}}
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (60, 100)
    strips = [found for found in axes.collections if not isinstance(found, (LineCollection, QuadMesh))]
    extents = [strip.get_datalim(axes.transData) for strip in strips]
    assert [(extent.x0, extent.x1) for extent in extents] == [(24, 28), (60, 92), (24, 24)]
    none = [text.get_position()[1] for text in axes.texts if text.get_text() == "none"]
    assert none == [labels.index("KernelCPD")]


def test_states_are_a_strip_of_colours(drawn):
    (strip,) = panel(drawn, "Boundaries by method").findobj(QuadMesh)
    states = np.asarray(strip.get_array()).ravel()
    assert states.tolist() == TWO["others"]["hmm"]["states"]
    edges = strip.get_coordinates()[0, :, 0]
    for i in range(len(states)):  # each state surrounds its own checkpoint, and the first has none
        assert edges[i] < STEPS[1:][i] < edges[i + 1]
    colours = {mpl.colors.to_hex(colour) for colour in strip.cmap(strip.norm(states))}
    assert len(colours) == 2


def test_states_of_other_checkpoints_are_refused(tmp_path):
    phases = planted_phases()
    phases["checkpoints"]["dropped"] = [{"step": 8, "why": "same weights as step 4"}]
    assert rate_steps(STEPS, phases).tolist() == [4, *range(12, 4 * COUNT, 4)]
    with pytest.raises(PhasegraphError, match=r"phases.json: other steps than metrics.parquet"):
        evidence.draw(write_study(tmp_path / "study", phases))


# --- recurrence ----------------------------------------------------------------------------------------------------


def dots(axes, colour):
    """Step and row of all dots of a colour."""
    lines = [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == colour]
    return {(x, y) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_dots_are_the_series_without_a_group(tmp_path):
    figure = recurrence.draw(write_study(tmp_path / "study", TWO))
    assert len(figure.axes) == 2
    for test, name in (("test_a", "Test A"), ("test_b", "Test B")):
        axes = panel(figure, f"{name} without one group of prompts")
        found = TWO["recurrence"]
        back = {(step, row) for one in found[test] for row, step in enumerate(one["places"], start=1) if step}
        assert dots(axes, recurrence.HUES[test]) == back
        everything = {(step, row) for row, steps in enumerate(found["all"][test], start=1) for step in steps}
        assert dots(axes, style.GREY) == everything >= back
        assert everything - back == {(132, 1)}
    a, b = figure.axes
    written = {text.xy[0]: text.get_text() for text in a.texts if " of " in text.get_text() and text.xy[0] > 1}
    assert written == {24: "15 of 16", 76: "14 of 16"}
    assert {text.xy[0]: text.get_text() for text in b.texts if text.get_text()[0] == "1"} == {24: "15 of 16"}
    lines = {line.get_xdata()[0]: line.get_linestyle() for line in a.lines if line.get_marker() != "o"}
    assert lines == {24: "-", 76: "--"}


def test_seeds_have_rows_with_boundaries_intervals_and_transitions(tmp_path):
    seeds = seeds_of(TWO, ["study", "seed-2", "seed-3"])
    seeds[1]["transition"] = {"start": 40, "half": 50, "end": 120, "plateau": 3.9, "final": 0.2}
    seeds[2] |= {"test_a": None, "test_b": None, "transition": None}
    figure = recurrence.draw(write_study(tmp_path / "study", TWO, seeds=seeds))
    axes = panel(figure, "Every seed, boundaries of test A above those of test B")
    assert axes is figure.axes[2] and axes.get_xlabel() == "training step"
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["study", "seed-2", "seed-3"]
    assert [label.get_weight() for label in labels] == ["bold", "normal", "normal"]
    places, intervals, shaded = set(), set(), set()
    for found in axes.collections:
        if not isinstance(found, LineCollection):
            extent = found.get_datalim(axes.transData)
            shaded.add((round((extent.y0 + extent.y1) / 2), extent.x0, extent.x1))
            continue
        (segment,) = found.get_segments()
        test = next(
            name for name, hue in recurrence.HUES.items() if mpl.colors.same_color(hue, found.get_color()[0, :3])
        )
        row = round(segment[:, 1].mean() - recurrence.HALVES[test])
        if segment[0, 1] == segment[1, 1]:
            intervals.add((row, test, *segment[:, 0]))
        else:
            places.add((row, test, segment[0, 0]))
    assert places == {(0, "test_a", 24), (0, "test_a", 76), (0, "test_b", 24), (1, "test_a", 76)}
    assert intervals == {(0, "test_a", 24, 28), (0, "test_a", 60, 92), (0, "test_b", 24, 24), (1, "test_a", 60, 92)}
    assert shaded == {(0, 60, 100), (1, 40, 120)}
    assert [text.get_position()[1] for text in axes.texts if text.get_text() == "not tested"] == [2]


def test_axis_reaches_the_last_mark_of_any_seed(tmp_path):
    seeds = seeds_of(TWO, ["study", "longer"])
    seeds[1]["test_a"] = [boundary(300, 280, 320)]
    figure = recurrence.draw(write_study(tmp_path / "study", TWO, seeds=seeds))
    assert all(axes.get_xlim()[1] > 320 for axes in figure.axes)


def test_damaged_and_missing_seeds_are_named(tmp_path):
    study = write_study(tmp_path / "study", TWO, seeds=[])
    study.seeds_path.write_text("{")
    with pytest.raises(PhasegraphError, match=r"seeds.json: damaged"):
        recurrence.draw(study)
    study.seeds_path.unlink()
    with pytest.raises(PhasegraphError, match=r"seeds.json: no such file"):
        recurrence.draw(study)


# --- tables and sentences ------------------------------------------------------------------------------------------


def test_boundaries_say_how_often_they_come_back():
    table = tables.boundary_table(TWO)
    assert [(row[0], row[4], row[5]) for row in table.rows] == [
        ("24", "A", "15 of 16"),
        ("76", "A", "14 of 16"),
        ("24", "B", "15 of 16"),
    ]
    assert table.head[-1] == "recurs" and "within 5 checkpoints" in table.note


def test_segments_say_how_often_they_have_their_label():
    table = tables.segment_table(TWO)
    assert table.head[:3] == ["steps", "label", "same label"]
    assert [row[:3] for row in table.rows] == [
        ["0\u201320", "exploration", "11 of 16"],
        ["24\u201372", "refinement", "11 of 16"],
        ["76\u2013156", "exploration", "11 of 16"],
    ]


def test_other_methods_are_listed():
    phases = planted_phases()
    rows = tables.others_table(phases).rows
    assert rows == [
        ["PELT", "penalty 3 ln n", "32, 80"],
        ["KernelCPD", "penalty 5", "none"],
        ["Gaussian HMM", "number of states by BIC: 3", "44, 104"],  # its first visit begins with the run
    ]
    phases["others"]["pelt"]["steps"] = list(range(4, 120, 4))
    assert tables.others_table(phases).rows[0][2] == "29 boundaries: 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, …"


@pytest.mark.parametrize(
    ("lag", "interval", "verdict"),
    [
        (3.25, [1.5, 5.0], "structure moves first (p\u00a0=\u00a00.05 of two unrelated events being as near)"),
        (-4, [-7, -1.5], "behaviour moves first (p\u00a0=\u00a00.05 of two unrelated events being as near)"),
        (1, [-2, 4], "which of them moves first is open"),
        (3, None, "which of them moves first is open"),
    ],
)
def test_lead_is_said_with_its_interval(lag, interval, verdict):
    phases = planted_phases()
    phases["behaviour"]["lead_lag"] = {"loss_second": leading(lag, interval)}
    (said,) = sentences.lead_lag_texts(phases)
    assert said.startswith("The changes of churn per displacement and of the loss of the second copy go together")
    assert said.endswith(f"): {verdict}.") and "p\u00a0=\u00a00.002 corrected" in said
    bounds = "no interval" if interval is None else f"{interval[0]:.1f}, {interval[1]:.1f}".replace("-", "\u2212")
    assert f"[{bounds}] checkpoints" in said


def test_leads_by_chance_are_not_claimed():
    first, second = sentences.lead_lag_texts(planted_phases())
    assert "): structure moves first (" in first
    assert "do not go together more than chance" in second and "moves first (" not in second
    assert sentences.lead_lag_texts(untested()) == []
    phases = planted_phases()
    phases["behaviour"]["lead_lag"]["loss_second"] = None  # too few checkpoints for lags
    assert sentences.lead_lag_texts(phases) == [second]
