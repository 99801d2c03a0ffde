"""The report stage on small synthetic studies, with tables by the real network and phases stages (90 s)."""

import doctest
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import networkx as nx
import numpy as np
import polars as pl
import pytest
import yaml
from figure_texts import check_texts
from matplotlib.collections import FillBetweenPolyCollection, PathCollection, QuadMesh
from matplotlib.legend import Legend
from planted_phases import COUNT, TWO, boundary, planted_phases
from scipy.stats import kendalltau

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.model.nodes import describe_graph, nodes_of
from phasegraph.network import details
from phasegraph.network.checkpoint import checkpoint
from phasegraph.network.families import compare_families
from phasegraph.network.gather import Outputs, gather
from phasegraph.network.stability import SCHEMA
from phasegraph.network.tails import fit_tails
from phasegraph.phases.settings import Settings
from phasegraph.phases.study import run_study
from phasegraph.phases.tables import Files
from phasegraph.report import (
    audit,
    beyond,
    blocks,
    choose,
    communities,
    evidence,
    families,
    findings,
    induction,
    method,
    sentences,
    similarity,
    stability,
    style,
    tables,
    texts,
    words,
)
from phasegraph.report.backbones import path_text
from phasegraph.report.catalogue import (
    FIGURES,
    MANIFEST,
    PAGE_COMPARED_FILES,
    PAGE_DIRECT_FILES,
    PAGE_FILES,
    figures_of,
)
from phasegraph.report.figures import similarity as similarity_figure
from phasegraph.report.figures.graphs import chosen_edges, end_edges
from phasegraph.report.layered import places
from phasegraph.report.page import write_page
from phasegraph.report.study import StudyData
from phasegraph.series.manifest import write_audit, write_manifest
from phasegraph.series.table import Audited, Flag
from phasegraph.types import GROUPS, Effect, Kind

LAYERS, HEADS = 3, 3
DRAWS = 39
"""Null graphs of every checkpoint."""


# --- synthetic studies ---------------------------------------------------------------------------------------------


def components(layers=LAYERS, heads=HEADS):
    return nodes_of(layers, heads)


def leave_one_out(groups):
    """Estimate and leave-one-out means [17, ...] of group values [16, ...]."""
    return np.concatenate([groups.mean(0)[None], (groups.sum(0) - groups) / (len(groups) - 1)])


def make_study(folder, *, count, direct=True, heads=HEADS, learns=True, ends=False, seed=0):
    """Write a study of `count` checkpoints; if it learns, edges L0H0 -> layer 1 grow while the loss falls.

    With ends, embedding and logits are nodes, and effects on the answer are measured.
    """
    rng = np.random.default_rng(seed)
    nodes = nodes_of(LAYERS, heads, embed=ends, logits=ends)
    grower = int(ends)  # L0H0
    layer = np.array([node.layer for node in nodes])
    mask = layer[:, None] < layer
    study = folder / "results" / "planted"
    others = study.with_name("other") / "edges"  # the same wiring under other prompts, in part
    for made in (study / "edges", study / "network", study / "backbones", others):
        made.mkdir(parents=True)
    lines = [f"{n.index}\t{n.name}\t{n.layer}\t{n.kind}\t{'' if n.head is None else n.head}" for n in nodes]
    (study / "nodes.tsv").write_text("\n".join(["index\tname\tlayer\tkind\thead", *lines]) + "\n")
    np.save(study / "mask.npy", mask)
    steps = [4 * i for i in range(count)]
    progress = 1 / (1 + np.exp(-(np.arange(count) - count / 2) / max(count / 25, 0.5))) * learns
    base = np.exp(rng.normal(-4, 1, mask.shape)) * mask
    base[0] *= 30 if ends else 1  # everything depends on the embedding
    drift = rng.normal(0, 0.02, (count, *mask.shape)).cumsum(0)
    elsewhere = np.exp(rng.normal(0, 0.5, mask.shape))
    rows = []
    for i, step in enumerate(steps):
        weights = base * np.exp(drift[i])
        weights[grower, layer == 1] += 0.3 * progress[i]
        for suffix, share in {"": 1.0, ".direct": 0.5}.items() if direct else {"": 1.0}.items():
            groups = share * weights * np.exp(rng.normal(0, 0.1, (GROUPS, *mask.shape)))
            np.save(study / "edges" / f"{step}{suffix}.npy", leave_one_out(groups).astype(np.float32))
        total, through = (study / "edges" / f"{step}{suffix}.npy" for suffix in ("", ".direct"))
        graph = study / "edges" / f"{step}.more.npz"
        np.savez(graph, **describe_graph(nodes, mask))
        out = study / "network" / f"{step}.npz"
        checkpoint(total, through if direct else None, graph, out, study / "backbones", draws=DRAWS)
        theirs = weights * elsewhere * np.exp(rng.normal(0, 0.1, (GROUPS, *mask.shape)))
        np.save(others / f"{step}.npy", leave_one_out(theirs).astype(np.float32))
        rows += behaviour_rows(rng, step, nodes, progress[i])
        rows += answer_rows(rng, step, nodes, progress[i]) if ends else []
    schema = {"step": pl.Int64, "quantity": pl.String, "node": pl.String}
    schema |= dict.fromkeys(("estimate", "low", "high"), pl.Float64)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(study / "behaviour.parquet")
    manifest = folder / "results" / "series" / "run" / "series.tsv"
    manifest.parent.mkdir(parents=True)
    audited = [
        Audited(step, f"p/{step}", distance=0.5 + 0.01 * i if i else None, used=True) for i, step in enumerate(steps)
    ]
    write_manifest(audited, manifest, tokens_per_step=1024)
    write_audit(manifest.with_name("audit.json"), audited)
    network, edges = ([study / path.format(step) for step in steps] for path in ("network/{}.npz", "edges/{}.npy"))
    lists = study / "nodes.tsv", study / "mask.npy"
    names = ("metrics.parquet", "roles.parquet", "distances.npy", "replicates.npz", "blocks.npz", "excess.npy")
    gather(network, edges, manifest, *lists, Outputs(*(study / name for name in (*names, "stability.parquet"))))
    names = ("nulls.parquet", "communities.parquet", "centralities.parquet", "widest_paths.parquet")
    details.gather_details(network, manifest, lists[0], details.Outputs(*(study / name for name in names)))
    fit_tails(edges, manifest, *lists, study / "tails.parquet")
    compare_families(edges[::2], [others / path.name for path in edges], manifest, *lists, study / "families.parquet")
    names = ("metrics.parquet", "replicates.npz", "blocks.npz", "behaviour.parquet")
    read = Files(*(study / name for name in names), manifest)
    run_study(read, study / "phases.json", Settings(alpha=0.05, bootstraps=99))
    return StudyData(study, manifest)


def behaviour_rows(rng, step, nodes, progress):
    values = {
        ("loss_first", None): 4.3,
        ("loss_second", None): 3.9 - 3.7 * progress,
        ("accuracy", None): 0.05 + 0.9 * progress,
    }
    for node in nodes:
        if node.kind is Kind.HEAD:
            values["prefix_matching", node.name] = 0.05 + (0.7 * progress if node.layer == 1 else 0)
            values["previous_token", node.name] = 0.1 + (0.8 * progress if node.name == "L0H0" else 0)
    for (quantity, name), value in values.items():
        around = delete_group(leave_one_out(value + rng.normal(0, 0.01, GROUPS)))
        yield step, quantity, name, *map(float, (around.estimate, around.low, around.high))


def answer_rows(rng, step, nodes, progress):
    """Effects on the answer: L0H0 helps as the model learns, L1H1 harms, the others do next to nothing."""
    effects = {"embed": 5.0, "L0H0": 3 * progress, "L1H1": -1.0, "logits": float("nan")}
    for node in nodes:
        value = effects.get(node.name, 0.01 * node.index)
        around = delete_group(leave_one_out(value + rng.normal(0, 0.02, GROUPS)))
        bounds = map(float, (around.estimate, around.low, around.high))
        yield step, "answer_logit_difference_total", node.name, *bounds


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """One that learns, with direct effects; one of six checkpoints; one of one-head layers that learns nothing; one
    with embedding, logits and effects on the answer.
    """
    return {
        "ends": make_study(tmp_path_factory.mktemp("ends"), count=8, ends=True),
        "learns": make_study(tmp_path_factory.mktemp("learns"), count=COUNT),
        "short": make_study(tmp_path_factory.mktemp("short"), count=6, direct=False),
        "one-head": make_study(tmp_path_factory.mktemp("one-head"), count=COUNT, direct=False, heads=1, learns=False),
    }


@pytest.fixture(scope="session")
def study(studies, tmp_path_factory):
    """The study that learns, with planted phases."""
    folder = tmp_path_factory.mktemp("phases") / "results"
    shutil.copytree(studies["learns"].folder.parent, folder)
    (folder / "planted" / "phases.json").write_text(json.dumps(TWO))
    return StudyData(folder / "planted", folder / "series" / "run" / "series.tsv")


@pytest.fixture(scope="session")
def drawn(study, tmp_path_factory):
    """All figures of the planted study, each drawn from the files alone that the catalogue names for it."""
    figures = {}
    for name, figure in FIGURES.items():
        folder = tmp_path_factory.mktemp(name)
        copy_files(study, folder, {*figure.files, *figure.direct_files})
        manifest = study.manifest_path if MANIFEST in figure.files else folder / "nothing.tsv"
        figures[name] = draw(name, StudyData(folder, manifest))
    return figures


def copy_files(study, folder, patterns):
    for pattern in patterns - {MANIFEST}:
        for step in study.steps.tolist() if "{step}" in pattern else [0]:
            target = folder / pattern.format(step=step)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(study.folder / pattern.format(step=step), target)


def draw(name, study):
    return importlib.import_module(f"phasegraph.report.figures.{name}").draw(study)


def column(study, table, **where):
    """Rows of a table, read anew from its file."""
    rows = pl.read_parquet(study.folder / f"{table}.parquet")
    for name, value in where.items():
        rows = rows.filter(pl.col(name) == value)
    return rows


def floats(values):
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def panel(figure, title):
    """Axes that a title stands above."""
    return next(axes for axes in figure.axes if title in [text.get_text() for text in axes.texts])


def labelled(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


# --- every figure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_small_cut_or_overlaps(drawn, name):
    check_texts(drawn[name])


@pytest.mark.parametrize("which", ["short", "one-head", "ends"])
@pytest.mark.parametrize("name", FIGURES)
def test_studies_with_gaps_are_drawn_as_well(studies, name, which):
    check_texts(draw(name, studies[which]))


UNITS = {
    "behaviour": {"cross-entropy (nats)", "share", "(1 − Spearman's ρ)\nper unit moved", "Gini", "training step"},
    "evidence": {"gain", "training step"},
    "recurrence": {"group left out", "training step"},
    "similarity": {"1 − Spearman's ρ", "training step", *similarity_figure.LABELS.values()},
    "metrics": {"weight", "Gini", "edges", "Q", "correlation", "intensity", "1 − Spearman's ρ", "training step"},
    "nulls": {"training step", "z: distance from the mean of the null graphs"},
    "communities": {"layer", "Q", "adjusted Rand", "training step"},
    "strengths": {"layer", "training step", "sum of weights", "mean log ratio to block median"},
    "roles": {"rank", "persistence beyond chance", "lag (checkpoints)", "training step"},
    "graphs": {"layer", "node colour: (out − in) / (out + in)"},
    "backbones": {"layer"},
    "families": {"share of the variance", "Spearman's ρ", "training step"},
    "tails": {"weight w of an edge", "share of possible edges of weight ≥ w", "Gini", "edges", "training step"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_axes_have_units(drawn, name):
    labels = {label for axes in drawn[name].axes for label in (axes.get_xlabel(), axes.get_ylabel())}
    labels |= {axes.get_xlabel() for outer in drawn[name].axes for axes in outer.child_axes}
    assert UNITS[name] <= labels


LEGENDS = {
    "behaviour": {"second copy", "accuracy", "churn", "noise floor", "√w", "abrupt boundary", "gradual boundary"},
    "evidence": {
        "gain, accepted (p ≤ 0.01)",
        "gain, not accepted: the search ends",
        "bootstrap quantiles 95–99 %",
        "abrupt boundary",
        "transition of behaviour",
    },
    "recurrence": {
        "Test A: the boundary comes back",
        "Test B: the boundary comes back",
        "a boundary elsewhere",
        "gradual boundary",
        "90 % interval of its place",
    },
    "similarity": {
        "the last",
        "the same, beyond noise",
        "itself: noise floor",
        "abrupt boundary",
        "90 % interval of its place",
        "transition of behaviour",
    },
    "metrics": {"entropy", "estimate", "90 % interval", "5–95 % of null graphs", "transition of behaviour"},
    "nulls": {"beyond (q ≤ 0.05)", "not beyond", "gradual boundary"},
    "communities": {"other communities", "MLP", "5–95 % of the ratio shuffle", "with the layers", "gradual boundary"},
    "strengths": {"undefined: no possible edge, or no peer", "MLP", "gradual boundary"},
    "roles": {"layer 0", "layer 2", "chance", "gatekeepers", "two halves of the prompts", "abrupt boundary"},
    "graphs": set(),
    "backbones": {"weight 0.2 (direct effect)", "widest path from the first to the last layer", "no edge"},
    "families": {"both families", "edges by family", "noise", "weights w", "one family, twice", "gradual boundary"},
    "tails": {"step 0", "step 156", "weights w", "√w", "transition of behaviour"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_legends_explain_what_is_drawn(drawn, name):
    legends = drawn[name].findobj(Legend)
    found = {text.get_text() for legend in legends for text in legend.get_texts()}
    assert found >= LEGENDS[name]
    if name == "graphs":
        titles = [legend.get_title().get_text() for legend in legends]
        assert titles == ["edge: weight (direct effect)", "node area: out-strength (total effect)"]


def test_legend_leaves_out_what_is_not_there(studies):
    figure = draw("behaviour", studies["one-head"])
    found = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "transition of behaviour" not in found


def test_same_bytes_in_every_process(study, tmp_path):
    running = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "phasegraph.report", "figure", "strengths", "--study", study.folder]
        command += ["--manifest", study.manifest_path]
        for kind in ("svg", "png"):
            command += [f"--{kind}", tmp_path / f"{seed}.{kind}"]
        running.append(subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": seed}))
    assert [process.wait() for process in running] == [0, 0]
    for kind, start in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        first = (tmp_path / f"1.{kind}").read_bytes()
        assert first.startswith(start) and first == (tmp_path / f"2.{kind}").read_bytes()


def test_catalogue_needs_only_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import phasegraph.report.catalogue; "
        "print({m.split('.')[0] for m in set(sys.modules) - before} - {*sys.stdlib_module_names, 'phasegraph'})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_only_empty_panels_are_called_undefined(drawn, studies):
    def undefined(figure):
        return [axes for axes in figure.axes if any(text.get_text().startswith("undefined") for text in axes.texts)]

    assert not any(undefined(figure) for figure in drawn.values())
    alone = studies["one-head"]
    (betweenness,) = undefined(draw("metrics", alone))
    assert "Concentration of betweenness" in [text.get_text() for text in betweenness.texts]
    assert len(undefined(draw("roles", alone))) == 3


@pytest.mark.parametrize(
    ("steps", "scale", "ticks"),
    [
        ([4 * i for i in range(143)], "linear", [0, 200, 400]),
        ([0, *(2**i for i in range(10)), 1000, 2000], "symlog", [0, 1, 10, 100, 1000]),
        ([0, *(2**i for i in range(18)), 143000], "symlog", [0, 1, 100, 10000]),
    ],
)
def test_step_axis_is_logarithmic_where_checkpoints_are(steps, scale, ticks):
    figure = style.new_figure(2)
    axes = figure.subplots()
    axes.plot(steps, steps)
    style.step_axis(axes, np.array(steps))
    low, high = axes.get_xlim()
    assert axes.get_xscale() == scale and low <= steps[0] and high >= steps[-1]
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == ticks
    places = (axes.transScale + axes.transLimits).transform([(steps[0], 0), (steps[-1], 0)])[:, 0]
    assert 0 < places[0] < 0.04 and 0.96 < places[1] < 1  # the checkpoints fill the axis
    check_texts(figure)


# --- what the figures show -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "label", "metric", "effect"),
    [
        ("Mean weight of an edge", "", "mean_weight", "total"),
        ("Concentration of edges", "√w", "gini_sqrt", "total"),
        ("Global efficiency", "", "efficiency", "direct"),
        ("Clustering", "", "clustering_middleman", "direct"),
        ("Modularity", "", "modularity", "total"),
    ],
)
def test_metric_lines_and_bands_are_the_table(study, drawn, title, label, metric, effect):
    axes = panel(drawn["metrics"], title)
    rows = column(study, "metrics", metric=metric, effect=effect)
    number = [line.get_label() for line in axes.lines].index(label) if label else 0
    np.testing.assert_array_equal(axes.lines[number].get_xdata(), rows["step"])
    np.testing.assert_array_equal(axes.lines[number].get_ydata(), floats(rows["estimate"]))
    band = axes.collections[number].get_datalim(axes.transData)
    assert band.y0 == pytest.approx(rows["low"].min()) and band.y1 == pytest.approx(rows["high"].max())


@pytest.mark.parametrize(
    ("title", "metric", "null", "place"),
    [("Concentration of strength", "gini_in_strength", "block", 3), ("Global efficiency", "efficiency", "ratio", 1)],
)
def test_grey_bands_are_the_null_graphs(study, drawn, title, metric, null, place):
    rows = column(study, "nulls", metric=metric, null=null)
    band = panel(drawn["metrics"], title).collections[place]
    extent = band.get_datalim(band.axes.transData)
    assert extent.y0 == pytest.approx(rows["low"].min()) and extent.y1 == pytest.approx(rows["high"].max())
    assert mpl.colors.to_hex(band.get_facecolor()[0]) == style.NULL
    assert band.get_zorder() < min(line.get_zorder() for line in band.axes.lines if len(line.get_xdata()) == COUNT)


def test_null_heatmaps_are_the_table(study, drawn):
    for axes, null in zip(drawn["nulls"].axes, ("block", "ratio"), strict=False):
        array = np.ma.filled(axes.findobj(QuadMesh)[0].get_array(), np.nan)
        for row, metric in enumerate(beyond.NAMES):
            rows = column(study, "nulls", metric=metric, null=null)
            outer, middle = array[4 * row], array[4 * row + 1]
            z, q = (floats(rows[name]) if len(rows) else np.full(COUNT, np.nan) for name in ("z", "q"))
            np.testing.assert_array_equal(middle, z)
            np.testing.assert_array_equal(outer, np.where(q <= 0.05, z, np.nan))
        said = [(text.get_position()[1], text.get_text()) for text in axes.texts]
        metrics = list(beyond.NAMES)
        if null == "ratio":
            assert (metrics.index("gini_out_strength"), "kept") in said
        assert (metrics.index("efficiency"), "kept") not in said


def test_communities_are_the_table(studies, drawn):
    for one, figure in (
        (studies["learns"], drawn["communities"]),
        (studies["ends"], draw("communities", studies["ends"])),
    ):
        table = column(one, "communities")
        names = [node.name for node in one.nodes if node.kind in (Kind.HEAD, Kind.MLP)]
        colours = figure.axes[0].findobj(QuadMesh)[0].get_array()
        assert colours.shape == (len(names), len(one.steps))
        counts = table["community"].value_counts(sort=True)["count"].to_list()
        shown = communities.SHOWN
        for name, row in zip(names, colours, strict=True):
            labels = table.filter(pl.col("node") == name).sort("step")["community"].to_numpy()
            for a, b in itertools.pairwise(range(len(labels))):
                assert labels[a] != labels[b] or row[a] == row[b]
                assert labels[a] == labels[b] or row[a] != row[b] or row[a] == shown
        assert (np.asarray(colours) < shown).sum() == sum(counts[:shown])


def test_renewal_is_the_adjusted_rand_index(study, drawn):
    found = communities.renewal(study.communities)
    assert np.isnan(found[0]) and len(found) == COUNT
    for i in range(1, COUNT):
        pairs = [np.equal.outer(labels, labels)[np.triu_indices(12, 1)] for labels in study.communities[i - 1 : i + 1]]
        both, expected = (pairs[0] & pairs[1]).sum(), pairs[0].sum() * pairs[1].sum() / len(pairs[0])
        largest = (pairs[0].sum() + pairs[1].sum()) / 2
        assert found[i] == pytest.approx((both - expected) / (largest - expected))
    line = labelled(panel(drawn["communities"], "Agreement"), "with the checkpoint before")
    np.testing.assert_array_equal(line.get_ydata(), found)


def test_excess_churn_is_divided_by_the_distance_moved(study, drawn):
    rows = column(study, "metrics", metric="excess_churn")
    moved = np.r_[np.nan, 0.5 + 0.01 * np.arange(1, COUNT)]
    line = panel(drawn["metrics"], "Change beyond noise").lines[0]
    np.testing.assert_allclose(line.get_ydata(), floats(rows["estimate"]) / moved)


def test_boundaries_and_transition_are_where_they_were_found(drawn):
    for name, title in (("metrics", "Concentration of strength"), ("behaviour", "Loss on the prompts")):
        axes = panel(drawn[name], title)
        lines = {line.get_xdata()[0]: line.get_linestyle() for line in axes.lines if len(line.get_xdata()) == 2}
        assert lines == {24: "-", 76: "--"}
        spans = {(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches}
        assert spans == {(60, 100), (24, 28), (60, 92)}


def test_behaviour_lines_are_the_table(study, drawn):
    losses, skill = (panel(drawn["behaviour"], title) for title in ("Loss on the prompts", "Skill"))
    for quantity, label in (("loss_first", "first copy"), ("loss_second", "second copy")):
        rows = column(study, "behaviour", quantity=quantity)
        np.testing.assert_array_equal(labelled(losses, label).get_ydata(), rows["estimate"])
    drawn_lines = {tuple(line.get_ydata()) for line in skill.lines}
    for head in ("L0H0", "L1H2", "L2H1"):
        assert tuple(column(study, "behaviour", quantity="prefix_matching", node=head)["estimate"]) in drawn_lines
    triangles = [line.get_xdata()[0] for line in losses.lines if line.get_marker() == "v"]
    assert triangles == [64]


def test_heatmaps_are_the_table(study, drawn):
    meshes = [axes.findobj(QuadMesh)[0] for axes in drawn["strengths"].axes[:4]]
    for mesh, (role, kind) in zip(meshes, itertools.product(("spreader", "gatherer"), ("raw", "block")), strict=True):
        rows = column(study, "roles", role=role, score_kind=kind)
        expected = floats(rows["estimate"]).reshape(COUNT, -1).T
        np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), expected)
    assert meshes[1].norm.vmin == -meshes[1].norm.vmax  # centred on 0
    undefined = mpl.colors.to_rgba(style.UNDEFINED)
    mlp = next(node.index for node in study.nodes if node.kind is Kind.MLP)
    assert tuple(meshes[1].cmap(meshes[1].norm(meshes[1].get_array()))[mlp, 0]) == pytest.approx(undefined)


def test_triangles_are_the_distances(study, drawn):
    raw, excess = (np.load(study.folder / f"{name}.npy") for name in ("distances", "excess"))
    panels = ((raw[0], raw[1]), (excess[0], excess[1]), (raw[2], excess[2]))
    for axes, matrices in zip(drawn["similarity"].axes, panels, strict=False):
        for mesh, matrix, part in zip(axes.findobj(QuadMesh), matrices, (np.triu, np.tril), strict=True):
            shown = part(np.ones_like(matrix), -1 if part is np.tril else 0).astype(bool)
            np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), ~shown)
            np.testing.assert_array_equal(np.asarray(mesh.get_array())[shown], matrix[shown])
    scales = [mesh.norm.vmax for axes in drawn["similarity"].axes[:3] for mesh in axes.findobj(QuadMesh)]
    assert scales[:2] == scales[2:4] == [np.quantile(matrix, 0.98) for matrix in raw[:2]]
    strip = panel(drawn["similarity"], "Distance of a checkpoint from …")
    np.testing.assert_array_equal(labelled(strip, "the last").get_ydata(), raw[0][-1, :-1])


def test_segments_have_their_letters_on_the_diagonal(study, drawn):
    for axes in drawn["similarity"].axes[:3]:
        letters = [(text.get_text(), text.get_position()) for text in axes.texts if text.get_text() in "ERCD"]
        assert [letter for letter, _ in letters] == ["E", "R", "E"]
        edges = style.cell_edges(study.steps)
        for (_, (x, y)), segment in zip(letters, TWO["segments"], strict=True):
            middle = (segment["start_step"] + segment["end_step"]) / 2
            assert x == pytest.approx((middle - edges[0]) / (edges[-1] - edges[0]))
            assert y == pytest.approx(1 - x)


@pytest.mark.parametrize("kind", ["spearman", "jensen_shannon", "wasserstein"])
def test_pairs_beyond_noise_are_counted(study, kind):
    distances = study.distance(kind)
    ending = {"spearman": "", "jensen_shannon": "_jensen_shannon", "wasserstein": "_wasserstein"}[kind]
    floor = column(study, "metrics", metric=f"noise_floor{ending}")["estimate"].to_list()
    pairs = list(itertools.combinations(range(COUNT), 2))
    beyond_both = sum(distances[i, j] > floor[i] and distances[i, j] > floor[j] for i, j in pairs)
    assert similarity.beyond_noise(study, kind) == (beyond_both, len(pairs))
    (said,) = similarity.similarity_texts(study)
    assert f"of {len(pairs)} pairs of checkpoints" in said and f"{100 * beyond_both / len(pairs):.0f} % by" in said


def test_persistence_is_the_table_and_has_a_ceiling(study, drawn):
    for title, kind in (("Raw", "raw"), ("Per possible edge", "per_edge"), ("Against peers", "block")):
        axes = panel(drawn["roles"], title)
        for role, line in zip(("spreader", "gatherer", "gatekeeper"), [axes.lines[i] for i in (0, 2, 4)], strict=True):
            rows = column(study, "stability", role=role, score_kind=kind, quantity="persistence")
            rows = rows.filter(pl.col("estimate").is_not_null())
            assert len(rows) == COUNT - 1 or (role, kind) == ("gatekeeper", "block")  # too few stand between peers
            assert line.get_xdata().tolist() == rows["lag"].to_list()
            np.testing.assert_array_equal(line.get_ydata(), floats(rows["estimate"]))
        dashed = {line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"}
        rows = column(study, "stability", score_kind=kind, quantity="reliability")
        assert dashed == set(rows["estimate"]) and len(dashed) == 2


def test_backbones_are_those_of_the_graph_files(study, drawn):
    figure, steps = drawn["backbones"], [56, 100, 156]
    largest = max(study.edges(step, Effect.DIRECT)[0].max() for step in steps)
    names = [node.name for node in study.nodes]
    for (row, kind), (place, step) in itertools.product(
        enumerate(("top10", "disparity", "percolation")), enumerate(steps)
    ):
        axes = figure.axes[3 * row + place]
        graph = nx.read_graphml(study.folder / "backbones" / f"{step}.{kind}.graphml")
        curves, *path = [
            found for found in axes.collections if isinstance(found, PathCollection) and len(found.get_paths()[0]) == 4
        ]
        expected = sorted(3.8 * np.sqrt(weight / largest) for *_, weight in graph.edges(data="weight"))
        np.testing.assert_allclose(sorted(curves.get_linewidths()), expected, rtol=1e-5)
        assert f"step {step:,}: {len(expected)} edge" in " ".join(text.get_text() for text in axes.texts)
        named = [text.get_text() for text in axes.texts if text.get_text() in names]
        assert bool(path) is bool(named) is (kind == "percolation")
        if named:
            ends = dict(zip(graph.nodes, nx.get_node_attributes(graph, "name").values(), strict=True))
            weights = {(ends[a], ends[b]): weight for a, b, weight in graph.edges(data="weight")}
            widths = [weights[pair] for pair in itertools.pairwise(named)]
            assert min(widths) == min(weights.values())  # its weakest edge is that of the backbone
            layers = [next(node.layer for node in study.nodes if node.name == name) for name in named]
            assert (layers[0], layers[-1]) == (0, LAYERS - 1)


def test_backbones_of_many_components_are_drawn_as_blocks(monkeypatch, study):
    monkeypatch.setattr(blocks, "MOST", 5)
    figure = draw("backbones", study)
    check_texts(figure)
    curves = next(found for found in figure.axes[2].collections if isinstance(found, PathCollection))
    graph = nx.read_graphml(study.folder / "backbones" / "156.top10.graphml")
    blocks_of = {node: (int(data["layer"]), data["kind"]) for node, data in graph.nodes(data=True)}
    assert len(curves.get_paths()) == len({(blocks_of[a], blocks_of[b]) for a, b in graph.edges})


def test_widest_path_is_said(study):
    said = path_text(study, {"before": 56, "last": 156})
    rows = column(study, "widest_paths").to_dicts()
    for row in rows:
        if row["step"] in (56, 156):
            width = column(study, "metrics", metric="width", effect="direct", step=row["step"]).row(0, named=True)
            assert width["estimate"] == row["width"]
            expected = f"{' → '.join(row['nodes'])}, {words.measured(*(width[c] for c in ('estimate', 'low', 'high')))}"
            assert f"{expected}, at step {row['step']}" in said
    nowhere = StudyData(study.folder, study.manifest_path)
    nowhere.__dict__["widest_paths"] = {step: {"nodes": [], "width": 0.0} for step in (56, 156)}
    assert "It is none at step 56; and none at step 156." in path_text(nowhere, {"before": 56, "last": 156})


def test_families_are_the_table(study, drawn):
    stacked, _, between, order = drawn["families"].axes
    bottom = np.zeros(COUNT // 2)
    parts = [found for found in stacked.collections if isinstance(found, FillBetweenPolyCollection)]
    for part, quantity in zip(parts, ("edge", "interaction", "family", "noise"), strict=True):
        rows = column(study, "families", scale="w", quantity=quantity)
        extent = part.get_datalim(stacked.transData)
        top = bottom + floats(rows["estimate"])
        assert extent.y0 == pytest.approx(bottom.min()) and extent.y1 == pytest.approx(top.max())
        bottom = top
    np.testing.assert_allclose(bottom, 1)
    for axes, label, scale, quantity in (
        (between, "weights w", "w", "between_families"),
        (between, "√w", "sqrt(w)", "between_families"),
        (order, "one family, twice", "rank", "spearman_ceiling"),
    ):
        rows = column(study, "families", scale=scale, quantity=quantity)
        assert labelled(axes, label).get_xdata().tolist() == rows["step"].to_list() == list(range(0, 4 * COUNT, 8))
        np.testing.assert_array_equal(labelled(axes, label).get_ydata(), floats(rows["estimate"]))


def test_tails_count_edges(study, drawn):
    axes = panel(drawn["tails"], "How many edges are that strong")
    weights = np.load(study.folder / "edges" / "156.npy")[0][study.mask]
    line = labelled(axes, "step 156")
    for weight, share in list(zip(line.get_xdata(), line.get_ydata(), strict=True))[::7]:
        assert share == pytest.approx((weights >= weight - 1e-9).mean())
    gini = next(a for a in drawn["tails"].axes if a.get_ylabel() == "Gini")
    rows = column(study, "metrics", metric="gini", step=156)
    points = {
        line.get_xdata()[0]: line.get_ydata()[0]
        for line in gini.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    assert points[156] == pytest.approx(rows["estimate"][0])


def test_graph_draws_the_strongest_edges_at_one_scale(study, drawn):
    steps = list(choose.telling_steps(study.steps, TWO))
    assert steps == [0, 28, 60, 80, 100, 156]
    largest = max(np.load(study.folder / "edges" / f"{step}.direct.npy")[0].max() for step in steps)
    for axes, step in zip(drawn["graphs"].axes, steps, strict=False):
        edges = np.load(study.folder / "edges" / f"{step}.direct.npy")[0]
        count = round(0.05 * study.mask.sum())
        wanted = set(zip(*np.unravel_index(np.argsort(-edges, axis=None)[:count], edges.shape), strict=True))
        wanted |= {(int(edges[:, v].argmax()), v) for v in range(len(edges)) if study.mask[:, v].any()}
        curves = next(found for found in axes.collections if isinstance(found, PathCollection))
        expected = sorted(3.8 * np.sqrt(edges[u, v] / largest) for u, v in wanted)
        np.testing.assert_allclose(sorted(curves.get_linewidths()), expected, rtol=1e-5)


def test_edges_of_weight_zero_are_never_drawn():
    mask = np.triu(np.ones((4, 4), bool), 1)
    edges = np.zeros((4, 4))
    edges[0, 1] = 0.5
    np.testing.assert_array_equal(np.argwhere(chosen_edges(edges, mask)), [[0, 1]])


def test_bumps_are_ranks(study, drawn):
    axes = panel(drawn["roles"], "Spreaders by raw strength")
    rows = column(study, "roles", role="spreader", score_kind="raw", step=156).filter(pl.col("rank") <= 8)
    names = {text.get_text(): text.xy[1] for text in axes.texts if text.get_text().startswith("L")}
    assert names == dict(zip(rows["node"], rows["rank"], strict=True))
    dots = {(x, y) for line in axes.lines if line.get_marker() == "." for x, y in zip(*line.get_data(), strict=True)}
    shown = {x for x, _ in dots}
    table = column(study, "roles", role="spreader", score_kind="raw").filter(pl.col("rank") <= 8)
    assert dots == {(s, r) for s, r in zip(table["step"], table["rank"], strict=True) if s in shown}


def test_many_components_are_drawn_as_blocks(monkeypatch, study):
    monkeypatch.setattr(blocks, "MOST", 5)
    nodes = blocks.drawn_nodes(study.nodes)
    assert [(node.layer, node.kind) for node in nodes] == list(itertools.product(range(LAYERS), (Kind.HEAD, Kind.MLP)))
    graph = blocks.drawn_graph(study, 156)
    direct, total = (study.edges(156, effect)[0] for effect in (Effect.DIRECT, Effect.TOTAL))
    members = [[n.index for n in study.nodes if (n.layer, n.kind) == (b.layer, b.kind)] for b in nodes]
    for i, j in itertools.product(range(len(nodes)), repeat=2):
        between = np.ix_(members[i], members[j])
        expected = direct[between].mean() if study.mask[between].any() else 0
        assert graph.edges[i, j] == pytest.approx(expected)
    np.testing.assert_allclose(graph.out_strength, [total[rows].sum(1).mean() for rows in members])


# --- embedding, logits and effects on the answer --------------------------------------------------------------------


def legend_texts(figure):
    return {text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()}


def test_embedding_and_logits_are_explained_only_where_they_are(studies, drawn):
    for name in ("graphs", "strengths"):
        assert {"embedding", "logits"} <= legend_texts(draw(name, studies["ends"]))
        assert not {"embedding", "logits"} & legend_texts(drawn[name])
    assert "no such strength" in legend_texts(draw("roles", studies["ends"]))
    assert "no such strength" not in legend_texts(drawn["roles"])


def test_embedding_and_logits_have_rows_of_their_own_below_and_above(studies):
    study = studies["ends"]
    figure = draw("strengths", study)
    out, against, into, _ = (axes.findobj(QuadMesh)[0] for axes in figure.axes[:4])
    embed = column(study, "roles", role="spreader", score_kind="raw", node="embed")
    np.testing.assert_array_equal(np.asarray(out.get_array())[0], embed["estimate"])
    logits = column(study, "roles", role="gatherer", score_kind="raw", node="logits")
    np.testing.assert_array_equal(np.asarray(into.get_array())[-1], logits["estimate"])
    assert np.ma.getmaskarray(against.get_array())[[0, -1]].all()
    components = column(study, "roles", role="spreader", score_kind="raw").filter(pl.col("node") != "embed")
    assert out.norm.vmax == components["estimate"].max() < embed["estimate"].min()
    assert figure.axes[0].get_yticks().tolist() == [2.5, 6.5, 10.5]  # layers 0 to 2, above the embedding
    marks = {line.get_marker(): line.get_ydata()[0] for line in figure.axes[0].lines if len(line.get_ydata()) == 1}
    assert (marks["D"], marks["*"]) == (0, 13)


def test_graph_places_embedding_below_and_logits_above(studies):
    study = studies["ends"]
    at = places(study.nodes)
    assert at[0].tolist() == [1, -1] and at[-1].tolist() == [1, 3]
    np.testing.assert_array_equal(at[1:-1], places(components()))
    step = int(study.steps[-1])
    edges = study.edges(step, Effect.DIRECT)[0]
    found = end_edges(edges, study.mask, study.nodes)
    for weights, chosen in ((edges[0], found[0]), (edges[:-1, -1], found[:-1, -1])):
        assert set(weights[chosen]) >= set(np.sort(weights)[-3:])
    assert not found[1:-1, 1:-1].any()
    inner = np.ix_(range(1, 13), range(1, 13))
    alone = chosen_edges(edges[inner], study.mask[inner])
    np.testing.assert_array_equal(chosen_edges(edges, study.inner_mask)[inner], alone)
    graph = blocks.drawn_graph(study, step)
    total = study.edges(step)[0]
    np.testing.assert_allclose(graph.out_strength, total[:, 1:-1].sum(1))
    low, high = draw("graphs", study).axes[0].get_ylim()
    assert (low, high) == (-1.5, 3.5)


def test_embedding_and_logits_are_never_drawn_in_a_block(monkeypatch, studies):
    monkeypatch.setattr(blocks, "MOST", 5)
    nodes = blocks.drawn_nodes(studies["ends"].nodes)
    assert [node.name for node in nodes] == ["embed", *(f"L{i}{k}" for i in range(3) for k in ("H0", "MLP")), "logits"]
    check_texts(draw("graphs", studies["ends"]))


def test_tails_and_rankings_are_those_of_components(studies):
    study = studies["ends"]
    axes = panel(draw("tails", study), "How many edges are that strong")
    step = int(study.steps[-1])
    weights = np.load(study.folder / "edges" / f"{step}.npy")[0][1:-1, 1:-1]
    assert labelled(axes, f"step {step}").get_xdata().max() == pytest.approx(weights.max())
    found = findings.ranking_agreement(study, 0, step)
    for role in ("spreader", "gatherer"):
        rows = column(study, "roles", role=role, score_kind="raw").filter(~pl.col("node").is_in(["embed", "logits"]))
        early, late = (floats(rows.filter(pl.col("step") == s)["estimate"]) for s in (0, step))
        assert found[role, "raw"].estimate == pytest.approx(kendalltau(early, late, nan_policy="omit").statistic)
    assert "embed" not in [row["node"] for row in findings.strongest(study, "spreader", "raw", step, 5)]


def test_answer_panels_are_the_tables(studies, drawn):
    study = studies["ends"]
    step = int(study.steps[-1])
    figure = draw("roles", study)
    assert len(figure.axes) == len(drawn["roles"].axes) + 2
    effects = column(study, "behaviour", quantity="answer_logit_difference_total", step=step)
    effects = {row["node"]: row for row in effects.to_dicts()}
    for title, kind in (("Answer and raw strength", "raw"), ("Answer and strength against peers", "block")):
        axes = panel(figure, title)
        rows = column(study, "roles", role="spreader", score_kind=kind, step=step).to_dicts()
        rows = [row for row in rows if row["node"] not in ("embed", "logits")]
        dots = [line for line in axes.lines if line.get_marker() in ("o", "s")]
        assert len(dots) == len(rows) == 12
        for row, dot in zip(rows, dots, strict=True):
            assert dot.get_ydata()[0] == effects[row["node"]]["estimate"]
            assert (dot.get_markerfacecolor() == "white") is (row["estimate"] is None)
            assert (dot.get_marker() == "s") is row["node"].endswith("MLP")
            if row["estimate"] is not None:
                assert dot.get_xdata()[0] == row["estimate"]
        heights = {tuple(path.vertices[:, 1]) for lines in axes.collections for path in lines.get_paths()}
        assert {(row["low"], row["high"]) for name, row in effects.items() if name[0] == "L"} <= heights
        assert {"L0H0", "L1H1"} <= {text.get_text() for text in axes.texts}


def test_page_says_what_embedding_and_logits_are(studies, pages):
    page = " ".join(" ".join(Page(pages["ends"].read_text()).text).split())
    assert "each of the 9 attention heads and 3 MLPs in 3 layers" in page
    assert "48 edges between components are possible, and 25 edges that leave the embedding or reach the logits" in page
    assert "The embedding is not ranked among the spreaders" in page and "The logits are not ranked" in page
    row = column(studies["ends"], "roles", role="spreader", score_kind="raw", node="embed").to_dicts()[-1]
    value = words.measured(row["estimate"], row["low"], row["high"])
    assert "the embedding: raw strength" in page and f"{value} at step {row['step']}" in page
    assert "not ranked among" not in " ".join(Page(pages["short"].read_text()).text)


# --- which checkpoints ---------------------------------------------------------------------------------------------


def test_six_spread_checkpoints_without_a_transition():
    steps = np.arange(0, 44, 4)
    assert list(choose.telling_steps(steps, planted_phases(transition=None))) == [0, 8, 16, 24, 32, 40]
    assert list(choose.telling_steps(steps[:3], planted_phases(transition=None))) == [0, 4, 8]


def test_landmarks_are_before_after_and_last():
    steps = np.arange(0, 160, 4)
    assert choose.landmarks(steps, TWO) == {"before": 56, "after": 100, "last": 156}
    assert choose.landmarks(steps, planted_phases(transition=None)) == {"early": 40, "last": 156}
    at_the_end = planted_phases(transition=(0, 80, 156))
    assert choose.landmarks(steps, at_the_end) == {"before": 0, "last": 156}


# --- sentences -----------------------------------------------------------------------------------------------------


def test_first_sentence_says_that_smooth_drift_suffices():
    first, second, third = sentences.verdict(planted_phases())
    assert first.startswith("Smooth drift suffices") and "p\u00a0=\u00a00.2," in first
    assert second.endswith("finds no boundary (p\u00a0=\u00a00.3).")
    assert third == "Behaviour changes at steps 60–100."


def test_regimes_without_a_jump_are_no_evidence():
    said = sentences.verdict(planted_phases(a=[boundary(76, 60, 92)], near=[76]))
    assert said[0].startswith("Smooth drift suffices")
    assert "2 regimes: a new one begins at step 76 (gradual, 90 % interval 60–92, p\u00a0=\u00a00.004)" in said[1]
    assert said[2] == (
        "A smooth process would be divided too: the gradual boundary is a description and no evidence of phases."
    )
    assert said[3].endswith("the gradual boundary at step 76 lies in that transition or within 5 checkpoints of it.")
    assert len(said) == 4


def test_a_jump_away_from_the_transition_is_not_its_jump():
    said = sentences.verdict(TWO)
    assert said[0].startswith("Smooth drift does not suffice") and "a jump of the rates" in said[0]
    assert "step 24 (p\u00a0=\u00a00.002)" in said[0]
    assert "the abrupt boundary at step 24 lies before it" in said[-2]
    assert said[-1] == "No jump is found there: around the change of behaviour, smooth drift suffices."


def test_a_jump_in_the_transition():
    jump = boundary(80, 76, 84, 0.001, "abrupt")
    said = sentences.verdict(planted_phases(a=[jump, boundary(120, 116, 124)], b=[jump], near=[80]))
    assert "the abrupt boundary at step 80 lies in that transition" in said[-1]
    assert "the gradual boundary at step 120 lies after it" in said[-1]
    assert not any("No jump" in sentence for sentence in said)


def test_jumps_that_test_a_misses_are_boundaries_too():
    jumps = [boundary(40, 40, 44, 0.001, "abrupt"), boundary(140, 136, 144, 0.002, "abrupt")]
    phases = planted_phases(b=jumps, transition=None)
    found = evidence.boundaries(phases)
    assert [(b.step, b.abrupt, b.regime) for b in found] == [(40, True, False), (140, True, False)]
    said = sentences.verdict(phases)
    assert "finds jumps of the rates of change at step 40 (90 % interval 40–44" in said[0]
    assert said[-1].startswith("No transition of behaviour is dated")
    assert [b.step for b in evidence.boundaries(TWO)] == [24, 76]  # one boundary, found by both tests


@pytest.mark.parametrize(("count", "words_"), [(1, "1 checkpoint is too few"), (6, "6 checkpoints are too few")])
def test_not_tested(count, words_):
    phases = {"checkpoints": {"n": count}, "test_a": None, "test_b": None, "behaviour": {"transition": None}}
    (only,) = sentences.verdict(phases)
    assert only.startswith("Phases were not tested") and words_ in only


def test_a_search_that_hits_its_limit_says_so():
    many = [boundary(step, step, step + 4) for step in (20, 60, 100)]
    limited = planted_phases(a=many)
    assert sentences.limit_text(limited) == (
        "The search of test A stopped at its limit of 3 boundaries; allowed 5, it finds 4."
    )
    assert sentences.limit_text(planted_phases(a=many, limit=4)) == ""
    limited["sensitivity"] = []
    assert sentences.limit_text(limited).endswith("so that the number of regimes is not identified.")


def test_agreement_with_behaviour():
    loss, prefix = sentences.agreement_texts(TWO)
    assert "a change in the speed of the loss of the second copy at step 64" in loss
    assert "One of the 2 structural boundaries lies within 5 checkpoints of it (p\u00a0=\u00a00.05" in loss
    assert prefix == "The same test finds no change in the speed of the largest prefix-matching score."
    assert "structural" not in sentences.agreement_texts(planted_phases())[0]
    nowhere = planted_phases(a=[boundary(8, 8, 8)])
    nowhere["behaviour"]["agreement"]["matches"]["loss_second"]["matches"] = 0
    assert sentences.agreement_texts(nowhere)[0].endswith(
        "The structural boundary does not lie within 5 checkpoints of it."
    )


def test_transition_and_left_out_checkpoints():
    assert (
        "10 % of the fall are done by step 60, half of it by step 80 and 90 % by step 100"
        in sentences.transition_text(TWO)
    )
    assert "no transition of behaviour is dated" in sentences.transition_text(planted_phases(transition=None))
    assert sentences.left_out_text(TWO) == ""
    dropped = planted_phases()
    dropped["checkpoints"]["dropped"] = [{"step": 1, "why": "same weights as step 0"}, {"step": 7, "why": "no metrics"}]
    assert sentences.left_out_text(dropped) == (
        "The change tests leave out step 1 (same weights as step 0) and step 7 (no metrics)."
    )


def test_words():
    assert doctest.testmod(words).failed == 0
    assert words.at_steps([4]) == "step 4" and words.at_steps([4, 1000]) == "steps 4 and 1,000"
    assert words.number(float("nan")) == "undefined" and words.number(-0.0001, 3) == "−0.000100"
    assert words.measured(2.0, float("nan"), float("nan")) == "2.00 [no interval]"


# --- findings ------------------------------------------------------------------------------------------------------


def test_ranking_agreement_is_kendalls_tau(study):
    found = findings.ranking_agreement(study, 8, 156)
    for role, kind in itertools.product(("spreader", "gatherer"), ("raw", "block")):
        early, late = (floats(column(study, "roles", role=role, score_kind=kind, step=s)["estimate"]) for s in (8, 156))
        assert found[role, kind].estimate == pytest.approx(kendalltau(early, late, nan_policy="omit").statistic)


def test_strongest_are_sorted_by_rank(study):
    found = findings.strongest(study, "spreader", "raw", 156, 3)
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert found[0]["node"] == "L0H0"  # planted


def test_circuit_is_found_by_attention_alone(study):
    circuit = induction.find_circuit(study)
    assert circuit.previous.node.name == "L0H0"
    assert {head.node.name for head in circuit.induction} == {"L1H0", "L1H1", "L1H2"}
    assert [head.node.name for head in circuit.peers] and {h.node.name for h in circuit.peers} == {"L0H1", "L0H2"}
    found = induction.circuit_edges(study, circuit, 156, Effect.TOTAL)
    edges = np.load(study.folder / "edges" / "156.npy").astype(float)
    targets = [head.node.index for head in circuit.induction]
    assert found["mean"].estimate == pytest.approx(edges[0, 0, targets].mean())
    assert found["peers"].estimate == pytest.approx(edges[0][np.ix_([1, 2], targets)].mean())
    assert found["L1H1"].high == pytest.approx(delete_group(edges[:, 0, 5]).high)


def test_circuit_sentences_for_every_case(study, studies):
    steps = choose.landmarks(study.steps, TWO)
    circuit = induction.find_circuit(study)
    assert "Of the heads that it can reach, L1H" in texts.circuit_text(circuit, 156)
    said = texts.circuit_change_text(study, circuit, steps)
    assert (
        "from L0H0 to them rises from" in said
        and " of the same layer, which do not look back, goes, with overlapping" in said
    )
    nothing = induction.find_circuit(studies["one-head"])
    assert "No head attends" in texts.circuit_text(nothing, 156)
    above = induction.Circuit(circuit.induction[0], circuit.previous, [], [])
    assert "lie where it cannot reach them" in texts.circuit_text(above, 156)


def lasting(differences, persistence=(0.6, 0.4), reliability=(0.9, 0.8), half_width=0.05):
    """A table of stability: kind of score -> difference of spreaders and gatherers."""
    rows = []
    for kind, difference in differences.items():
        pairs = zip(("spreader", "gatherer"), persistence, reliability, strict=True)
        for role, value, halves in pairs:
            rows.append(
                ("total", role, kind, "mean_persistence", None, 0.1, value, value - 0.05, value + 0.05, 10, None)
            )
            rows.append(("total", role, kind, "reliability", None, 0.1, halves, None, None, 5, None))
            rows.append(("total", role, kind, "half_life", None, None, None, None, None, 10, 4))
        low, high = (None, None) if half_width is None else (difference - half_width, difference + half_width)
        both = ("total", "spreader-gatherer", kind, "mean_persistence", None, None, difference, low, high, 10, None)
        rows.append(both)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (0.2, "Spreaders keep their places longer than gatherers: by strength against peers"),
        (-0.2, "Gatherers keep their places longer than spreaders: by strength against peers"),
        (0.04, "Spreaders and gatherers cannot be told apart by how long they keep their places"),
    ],
)
def test_stability_is_one_number_with_its_interval(difference, verdict):
    number, _ = stability.stability_texts(lasting({"raw": 0.3, "block": difference, "per_edge": -0.01}))
    assert (
        verdict in number
        and f"a difference of {words.measured(difference, difference - 0.05, difference + 0.05)}" in number
    )
    assert (
        "By strength per possible edge the difference is −0.0100" in number
        and "cannot be told from 0; by raw" in number
    )
    assert "is 0.600 [0.550, 0.650] for spreaders and 0.400 [0.350, 0.450] for gatherers" in number
    assert "is 0.300 [0.250, 0.350]." in number  # the raw one


def test_stability_without_peers_intervals_or_rankings():
    number, _ = stability.stability_texts(lasting({"raw": 0.2}))
    assert "longer than gatherers: by raw strength" in number and "No component has peers" in number
    (number, _) = stability.stability_texts(lasting({"block": 0.2}, half_width=None))
    assert "no interval that would tell the two apart" in number and "[no interval]" in number
    (only,) = stability.stability_texts(lasting({}))
    assert only.startswith("There are no two checkpoints")


def test_stability_has_a_ceiling():
    def said(persistence, reliability):
        table = lasting({"block": persistence[0] - persistence[1]}, persistence, reliability)
        return stability.stability_texts(table)[1]

    partly = said((0.6, 0.3), (0.9, 0.5))
    assert "0.900 for spreaders and 0.500 for gatherers (reliability)" in partly
    assert "The ranking of gatherers is the less reliable one, so part of the difference is noise." in partly
    assert "a rough correction, is 0.667 and 0.600, a difference of 0.0667;" in partly
    assert "part of the difference is noise, and corrected for it nothing of it is left." in said(
        (0.6, 0.5), (0.9, 0.5)
    )
    assert "of spreaders is the less reliable one, so noise does not explain" in said((0.6, 0.3), (0.5, 0.9))
    assert "of spreaders is the less reliable one, so part of the difference" in said((0.3, 0.6), (0.5, 0.9))
    assert "equally reliable" in said((0.6, 0.3), (0.8, 0.8)) and "less reliable" not in said((0.6, 0.58), (0.9, 0.5))
    assert said((0.6, 0.3), (None, None)) == ""
    assert said((0.6, 0.3), (0.5, -0.1)).endswith("Where halves do not agree, persistence says nothing.")


def test_stability_table_has_every_ranking(study):
    table = stability.stability_table(study.stability)
    assert [row[0] for row in table.rows][::3] == [
        "spreaders by strength against peers",
        "gatherers by strength against peers",
        "gatekeepers by betweenness against peers",
    ]
    assert len(table.rows) == 9
    found = column(study, "stability", role="gatherer", score_kind="raw")
    row = next(row for row in table.rows if row[0] == "gatherers by raw strength")
    for cell, quantity, lag in zip(
        row[1:],
        ("mean_persistence", "half_life", "reliability", "tau", "rbo"),
        (None, None, None, 1, 1),
        strict=True,
    ):
        at = pl.col("lag").is_null() if lag is None else pl.col("lag") == lag
        (one,) = found.filter((pl.col("quantity") == quantity) & at).to_dicts()
        if quantity == "half_life" and one["estimate"] is None:
            assert cell == f"none within {COUNT - 1}"
        else:
            around = [one[name] for name in ("estimate", "low", "high")]
            digits = 2 if quantity == "half_life" else 3
            assert cell == (words.number(around[0]) if quantity == "reliability" else words.measured(*around, digits))
    assert stability.stability_table(lasting({"raw": 0.2})).rows[0][2] == "none within 4"


def test_role_tables_say_how_often_a_component_is_a_holder(study):
    table = tables.role_table(study, "spreader", {"last": 156})
    ranked = column(study, "roles", role="spreader", score_kind="raw", step=156).filter(pl.col("rank") <= 5)
    for cells, row in zip(table.rows, ranked.sort("rank").to_dicts(), strict=True):
        assert cells[1].startswith(row["node"]) and cells[1].endswith(f"], {100 * row['holder_share']:.0f} %")
    assert {row["holder_share"] for row in ranked.to_dicts()} >= {0, 1}


def test_families_are_said_with_their_interval(study):
    texts_ = families.family_texts(study, "other", ['tokens: "uniform" here, "structured" there'])
    assert (
        'of the study other (tokens: "uniform" here, "structured" there), at the 20 checkpoints of both.' in texts_[0]
    )
    for step, start in ((152, ""), (0, ", and ")):
        (row,) = column(study, "families", scale="w", quantity="between_families", step=step).to_dicts()
        value, low, high = (100 * row[name] for name in ("estimate", "low", "high"))
        assert f"{start}{value:.1f} [{low:.1f}, {high:.1f}] %" in texts_[1]
        assert 5 < value < 60  # planted: half of a standard deviation of the logarithms
    (row,) = column(study, "families", scale="rank", quantity="spearman_ceiling", step=152).to_dicts()
    assert f"would reach {words.measured(row['estimate'], row['low'], row['high'])}" in texts_[2]


def test_families_without_variance_are_said():
    class Equal:
        families = pl.DataFrame(
            {"step": [0], "scale": ["w"], "quantity": ["between_families"], "estimate": [None]},
            schema_overrides={"estimate": pl.Float64},
        )
        steps = np.array([0])

    intro, shares, order = families.family_texts(Equal(), "other", [])
    assert "of the study other, at every checkpoint." in intro and "all weights are equal" in shares and order == ""


def test_tasks_are_told_apart_by_what_differs():
    own, other = {"name": "induction", "prompts": 32}, {"name": "induction", "prompts": 64, "tokens": "structured"}
    assert families.task_differences(own, own) == []
    assert families.task_differences(own, other) == [
        "prompts: 32 here, 64 there",
        'tokens: null here, "structured" there',
    ]


def test_only_compared_studies_have_the_figure_of_families():
    assert set(figures_of(True)) - set(figures_of(False)) == {"families"} and list(FIGURES) == figures_of(True)


def test_limits_follow_the_study(study, studies):
    settings = {"task": {"prompts": 32}, "measure": "variance"}
    said = " ".join(texts.limit_texts(study, settings))
    assert "use direct effects" in said and "With 32 prompts" in said and "gini (redundant: with churn)" in said
    settings = {"task": {"prompts": 128}, "measure": "cosine"}
    said = " ".join(texts.limit_texts(studies["short"], settings))
    assert "Warning: direct effects were not measured" in said and "rough" not in said and "cosine of raw" in said
    assert "rounding" not in said
    assert "not compared with one of other prompts" in said
    compared = " ".join(texts.limit_texts(study, settings | {"compare_with": "other"}))
    assert "not compared with one" not in compared and "nothing can be said of a third" in compared
    assert "was run in bfloat16" in " ".join(texts.limit_texts(study, settings | {"dtype": "bfloat16"}))


# --- the page ------------------------------------------------------------------------------------------------------


def config(name="planted", **changed):
    task = {"name": "induction", "prompts": 32, "reference": 32, "segment": 15, "seed": 0}
    study = {"series": "run", "task": task, "intervention": "mean", "measure": "variance", "direct": True, "phases": {}}
    studies = {name: study | changed}
    if other := changed.get("compare_with"):
        studies[other] = study | {"task": task | {"tokens": "structured"}}
    return {"series": {"run": {"source": "train", "recipe": {}}}, "studies": studies}


class Page(HTMLParser):
    """Links and texts of a page; every tag must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.sources, self.links, self.text, self.ids = [], [], [], [], set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="session")
def pages(study, studies, drawn, tmp_path_factory):
    """The pages of all studies; that of the planted one has all figures."""
    found = {}
    for name, one in {"planted": study, **{name: studies[name] for name in ("short", "one-head", "ends")}}.items():
        images = one.folder / "figures"
        images.mkdir()
        compared = "other" if name == "planted" else None
        (one.folder.parent / "other" / "report.html").touch()
        for figure in figures_of(bool(compared)):
            if name == "planted":
                drawn[figure].savefig(images / f"{figure}.svg")
            else:
                (images / f"{figure}.svg").write_text("<svg/>")
        settings = one.folder / "run_config.yaml"
        settings.write_text(yaml.safe_dump(config(direct=name in ("planted", "ends"), compare_with=compared)))
        found[name] = one.folder / "report.html"
        write_page(one, settings, sorted(images.glob("*.svg")), found[name])
    return found


def test_page_is_whole_and_needs_nothing_else(study, pages):
    html = pages["planted"].read_text()
    page = Page(html)
    text = " ".join(" ".join(page.text).replace("\u00a0", " ").split())
    assert len(page.sources) == len(FIGURES) and all(s.startswith("data:image/svg+xml;base64,") for s in page.sources)
    assert "<script" not in html and "@import" not in html and "url(" not in html
    for link in page.links:
        inside = link.removeprefix("#") in page.ids if link.startswith("#") else (study.folder / link).exists()
        assert inside, link
    assert text.startswith("phasegraph: planted") or "planted" in page.text
    assert " ".join(sentences.verdict(TWO)).replace("\u00a0", " ") in text
    assert html.index("Smooth drift does not suffice") < html.index("<main>")  # the first paragraph
    for figure in FIGURES.values():
        assert figure.title in text.replace("&#39;", "'")
    assert pages["planted"].stat().st_size < 5e6


def test_page_gives_every_number_an_interval(study, pages):
    text = " ".join(Page(pages["planted"].read_text()).text)
    row = findings.strongest(study, "spreader", "raw", 156, 1)[0]
    assert f"{row['node']} {words.number(row['estimate'])}" in text
    assert words.measured(row["estimate"], row["low"], row["high"]).split(" ", 1)[1] in text
    assert "gradual" in text and "60–92" in text and "0.004" in text


def test_page_says_what_is_beyond_the_null_models(study, pages):
    page = " ".join("".join(Page(pages["planted"].read_text()).text).replace("\u00a0", " ").split())
    nulls = pl.read_parquet(study.folder / "nulls.parquet")
    for said in (beyond.nulls_text(nulls), beyond.rule_text(nulls), beyond.headline(nulls)):
        assert said and said.replace("\u00a0", " ") in page
    row = column(study, "nulls", metric="efficiency", null="block", step=156).to_dicts()[0]
    assert words.measured(row["mean"], row["low"], row["high"]) in page
    assert "description and not a finding" in page or "are divided less well" in page
    assert "The tail of the weights was fitted at 8 checkpoints" in page
    assert "Null models answer for one metric at a time" in page


def test_pages_of_studies_with_gaps(pages):
    short = " ".join(Page(pages["short"].read_text()).text)
    assert "Phases were not tested: 6 checkpoints are too few" in short and "not tested" in short
    assert "Direct effects were not measured." in short
    assert "belongs to the prompts" not in short and "families" not in short
    whole = " ".join(Page(pages["planted"].read_text()).text)
    assert "How much of it belongs to the prompts" in whole and "families.parquet" in whole
    alone = " ".join(Page(pages["one-head"].read_text()).text)
    assert "No transition of behaviour is dated" in alone and "none dated" in alone and "No head attends" in alone


def test_page_is_the_same_every_time(study, pages, tmp_path):
    files = [study.folder / "figures" / f"{name}.svg" for name in FIGURES]
    again = study.folder / "again.html"
    write_page(StudyData(study.folder, study.manifest_path), study.folder / "run_config.yaml", files[::-1], again)
    assert again.read_bytes() == pages["planted"].read_bytes()


def test_captions_exist_and_say_something():
    from phasegraph.report.page import CAPTIONS

    for name in FIGURES:
        caption = (CAPTIONS / f"{name}.rst").read_text()
        assert len(caption) > 200
        # a paragraph that begins with "(a)" would be a list in reStructuredText
        assert not any(part.lstrip().startswith("(") and part.lstrip()[2] == ")" for part in caption.split("\n\n"))


def test_page_lists_every_file_that_it_reads(study, tmp_path):
    folder = tmp_path / "results" / "planted"
    copy_files(study, folder, {*PAGE_FILES, *PAGE_DIRECT_FILES, *PAGE_COMPARED_FILES})
    (tmp_path / "run_config.yaml").write_text(yaml.safe_dump(config(compare_with="other")))
    (tmp_path / "tails.svg").write_text("<svg/>")
    alone = StudyData(folder, study.manifest_path)
    write_page(alone, tmp_path / "run_config.yaml", [tmp_path / "tails.svg"], folder / "report.html")
    assert (folder / "report.html").is_file()


# --- mistakes ------------------------------------------------------------------------------------------------------


def copy_of(study, tmp_path):
    """Hard links, so that a file that shall change must be removed first."""
    folder = tmp_path / "planted"
    shutil.copytree(study.folder, folder, copy_function=os.link)
    return StudyData(folder, study.manifest_path)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("metrics", "metrics.parquet"),
        ("behaviour", "behaviour.parquet"),
        ("similarity", "distances.npy"),
        ("strengths", "roles.parquet"),
        ("roles", "stability.parquet"),
        ("similarity", "excess.npy"),
        ("backbones", "widest_paths.parquet"),
        ("families", "families.parquet"),
        ("graphs", "edges/0.direct.npy"),
        ("tails", "phases.json"),
    ],
)
def test_missing_and_damaged_files_are_named(study, tmp_path, name, missing):
    for spoil in ("remove", "damage"):
        one = copy_of(study, tmp_path / spoil)
        (one.folder / missing).unlink()
        if spoil == "damage":
            (one.folder / missing).write_bytes(b"nonsense")
        with pytest.raises(PhasegraphError) as error:
            draw(name, one)
        assert missing.split("/")[-1] in str(error.value) and "\n" not in str(error.value)


def flagged(study, folder, faults, used=()):
    """The same study, with steps between its own that are flagged."""
    audited = [Audited(int(step), f"p/{step}", distance=0.5, used=True) for step in study.steps]
    for step, flag in faults.items():
        audited.append(Audited(step, f"p/{step}", [flag], used=step in used))
    write_manifest(sorted(audited, key=lambda row: row.step), folder / "series.tsv")
    return StudyData(study.folder, folder / "series.tsv")


def test_what_the_audit_found_is_said_and_listed(study, tmp_path):
    assert audit.audit_text(study).endswith("Nothing was found in any of the 40.")
    assert audit.audit_table(study) is None
    faults = {1: Flag("duplicate", "duplicate of step 0", 0), 6: Flag("unreadable", "it ends within its header")}
    one = flagged(study, tmp_path, faults)
    assert audit.audit_text(one).endswith(
        "Of the 42, 2 are flagged: 1 duplicate and 1 unreadable. They are left out of everything below."
    )
    rows = [
        ["1", "duplicate of step 0", "left\u00a0out"],
        ["6", "unreadable: it ends within its header", "left\u00a0out"],
    ]
    assert audit.audit_table(one).rows == rows
    both = audit.audit_text(flagged(study, tmp_path, faults, used=[1]))
    assert "1 is left out of everything below. By request, 1 is included all the same" in both
    many = {4 * step + 1: Flag("duplicate", f"duplicate of step {4 * step}", 4 * step) for step in range(50)}
    table = audit.audit_table(flagged(study, tmp_path, many))
    assert len(table.rows) == audit.SHOWN
    assert table.note == "10 more rows in series.tsv and audit.json."


def test_files_that_do_not_fit_are_named(study, tmp_path):
    one = copy_of(study, tmp_path)
    roles = pl.read_parquet(one.folder / "roles.parquet", memory_map=False).filter(pl.col("step") > 0)
    for name in ("distances.npy", "roles.parquet"):
        (one.folder / name).unlink()
    roles.write_parquet(one.folder / "roles.parquet")
    np.save(one.folder / "distances.npy", np.zeros((3, 3)))
    with pytest.raises(PhasegraphError, match=r"distances.npy: \[3, 3\] for the 40 checkpoints"):
        draw("similarity", one)
    with pytest.raises(PhasegraphError, match=r"roles.parquet: other nodes or steps"):
        draw("strengths", one)
    manifest = tmp_path / "series.tsv"
    manifest.write_text("\n".join(study.manifest_path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(PhasegraphError, match=r"series.tsv: step 156 is missing"):
        draw("metrics", StudyData(one.folder, manifest))


def test_command_line_reports_a_mistake_in_one_line(study, tmp_path):
    command = [
        sys.executable,
        "-m",
        "phasegraph.report",
        "page",
        "--study",
        study.folder,
        "--manifest",
        study.manifest_path,
    ]
    command += [
        "--config",
        tmp_path / "no.yaml",
        "--figures",
        tmp_path / "tails.svg",
        "--out",
        tmp_path / "report.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not (tmp_path / "report.html").exists()
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("phasegraph: error:") and "no.yaml" in done.stderr


@pytest.mark.parametrize("text", ["[]", "studies: {}", "a: [", "series: {}\nstudies: {planted: {series: run}}"])
def test_config_that_does_not_fit_is_named(tmp_path, text):
    path = tmp_path / "run_config.yaml"
    path.write_text(text)
    with pytest.raises(PhasegraphError, match=r"run_config.yaml: not the merged configuration of study planted"):
        method.read_config(path, "planted")


def test_unknown_and_missing_figures_are_named(study, tmp_path):
    settings = tmp_path / "run_config.yaml"
    settings.write_text(yaml.safe_dump(config()))
    (tmp_path / "nonsense.svg").write_text("<svg/>")
    with pytest.raises(PhasegraphError, match="no figure of that name"):
        write_page(study, settings, [tmp_path / "nonsense.svg"], tmp_path / "report.html")
    with pytest.raises(PhasegraphError, match=r"tails.svg: no such file"):
        write_page(study, settings, [tmp_path / "tails.svg"], tmp_path / "report.html")
    with pytest.raises(PhasegraphError, match=r"tails.rst: no such file"):
        (tmp_path / "tails.svg").write_text("<svg/>")
        write_page(study, settings, [tmp_path / "tails.svg"], tmp_path / "report.html", captions=tmp_path)
