"""The tables of the report: rows of words, ready to print."""

from dataclasses import dataclass

import polars as pl

from phasegraph.jackknife import Jackknife
from phasegraph.network.nulls import NULLS
from phasegraph.phases.settings import TESTS
from phasegraph.report.beyond import COMPOSED, NAMES
from phasegraph.report.findings import strongest
from phasegraph.report.induction import Circuit, circuit_edges
from phasegraph.report.study import StudyData
from phasegraph.report.words import ENDS, listed, measured, number, plural, steps_range
from phasegraph.types import Effect

CONCENTRATION = {
    "mean_weight": "mean weight of an edge",
    "gini": "Gini of the weights w",
    "gini_sqrt": "Gini of √w",
    "n_eff_entropy": "effective number of edges (entropy)",
    "n_eff_simpson": "effective number of edges (Simpson)",
    "top1_share": "share of the strongest 1 %",
    "top10_share": "share of the strongest 10 %",
    "gini_out_strength": "Gini of out-strength",
    "gini_in_strength": "Gini of in-strength",
}
"""Metrics of weights -> what the table calls them; total effect."""
PATHS = {"efficiency": "global efficiency", "gini_betweenness": "Gini of betweenness"}
"""The same for metrics of paths."""

FIRST = 5
"""Number of components in a table of roles."""

LISTED = 12
"""Most steps that are written out in a cell."""


@dataclass(frozen=True)
class Table:
    """A table of words."""

    head: list[str]
    rows: list[list[str]]
    note: str = ""
    """What is to be known to read it."""


def boundary_table(phases: dict) -> Table:
    """List the boundaries of both tests."""
    recurrence = phases["recurrence"]
    rows = [
        [
            f"{b['step']:,}",
            steps_range(*b["interval_steps"]),
            f"{b['p_value']:.2g}",
            b["kind"],
            name.removeprefix("Test "),
            _of_groups(again["share"], recurrence),
        ]
        for test, name in TESTS.items()
        for b, again in zip(phases[test]["boundaries"], recurrence[test], strict=True)
    ]
    note = (
        "A boundary is the first checkpoint that was reached at the new rates. Test A asks for levels of the rates "
        "against autocorrelated noise, test B for jumps beside a smooth trend; a boundary of A is abrupt if one of "
        "B is near. Recurs: in how many of the series that leave one group of prompts out the same test finds a "
        f"boundary within {plural(phases['settings']['near_checkpoints'], 'checkpoint')} of it."
    )
    return Table(["step", "90 % interval", "p", "kind", "test", "recurs"], rows, note)


def others_table(phases: dict) -> Table:
    """List what other methods make of the same series."""
    rows = []
    for other in phases["others"].values():
        steps, detail = other["steps"], other["detail"]
        if "states" in other:  # its first visit begins with the run
            steps = steps[1:]
            detail += f": {other['chosen']}"
        rows.append([other["name"], detail, _some_steps(steps)])
    note = (
        "The same rates as in the tests. These methods choose how many boundaries there are by a penalty or a "
        "criterion and hold no level: autocorrelated noise and smooth drift give them boundaries too. They are shown "
        "for comparison, and nothing on this page rests on them."
    )
    return Table(["method", "how", "boundaries"], rows, note)


TESTED = {"blocks": "blocks of edges", "metrics": "metrics"}
"""What the rows of the sensitivity table are about."""


def sensitivity_table(phases: dict) -> Table:
    """List how many boundaries other limits of the search would give."""

    def cell(found: dict | None) -> str:
        if found is None:
            return "too few checkpoints"
        return ", ".join(f"{step:,}" for step in found["steps"]) or "none"

    rows = [
        [TESTED[row["series"]], str(row["max_changes"]), str(row["min_size"]), cell(row["test_a"]), cell(row["test_b"])]
        for row in phases["sensitivity"]
    ]
    note = (
        "Steps of the boundaries that are found if more of them, or shorter regimes, are allowed, or if the rates of "
        "the whole graph's metrics are tested in place of those of blocks of edges."
    )
    return Table(["rates of", "most boundaries", "shortest regime", "test A", "test B"], rows, note)


def segment_table(phases: dict) -> Table:
    """List the segments with their label and the three numbers behind it."""
    rows = [
        [
            steps_range(segment["start_step"], segment["end_step"]),
            segment["label"],
            _of_groups(segment["label_share"], phases["recurrence"]),
            number(segment["relative_slope"]),
            number(segment["relative_change"]),
            number(segment["relative_churn"]),
        ]
        for segment in phases["segments"]
    ]
    note = (
        "Labels describe by rule and prove nothing. Same label: in how many of the series that leave one group of "
        "prompts out most checkpoints of the segment have it. Slope: of the Gini coefficient, in ranges of the whole "
        "run per length of the run. Change: over the segment, in standard deviations of its noise. Churn: beyond noise "
        "per unit of weight displacement, relative to the last 20 checkpoints."
    )
    return Table(["steps", "label", "same label", "slope", "change", "churn"], rows, note)


def _of_groups(share: float, recurrence: dict) -> str:
    """Write a share of the series without one group as a count."""
    return f"{round(share * recurrence['groups'])} of {recurrence['groups']}"


def _some_steps(steps: list[int]) -> str:
    """Write training steps, only the first of very many."""
    if len(steps) <= LISTED:
        return ", ".join(f"{step:,}" for step in steps) or "none"
    return f"{len(steps)} boundaries: {', '.join(f'{step:,}' for step in steps[: LISTED - 1])}, …"


def role_table(study: StudyData, role: str, steps: dict[str, int]) -> Table:
    """List the strongest components of a role, raw and against peers, at the first and the last of some checkpoints."""
    chosen = dict.fromkeys([next(iter(steps.values())), list(steps.values())[-1]])
    columns = [
        (f"{title}, step {step:,}", strongest(study, role, kind, step, FIRST))
        for kind, title in (("raw", "raw"), ("block", "against peers"))
        for step in chosen
    ]
    rows = [
        [str(place + 1), *(_role_cell(found, place) for _, found in columns)]
        for place in range(max((len(found) for _, found in columns), default=0))
    ]
    return Table(["rank", *(title for title, _ in columns)], rows, _ends_note(study, role, list(chosen)))


def edge_table(study: StudyData, circuit: Circuit, steps: dict[str, int], effect: Effect) -> Table:
    """List the edges from the previous-token head to the induction heads at some checkpoints."""
    found = [circuit_edges(study, circuit, step, effect) for step in steps.values()]
    source = circuit.previous.node.name
    names = {name: f"{source} → {name}" for name in found[0]}
    names |= {
        "mean": f"mean of the edges from {source}",
        "peers": "mean from heads of that layer that do not look back",
    }
    rows = [[names[key], *(_interval(here[key]) for here in found)] for key in found[0]]
    return Table([f"{effect} effect", *(f"step {step:,}" for step in steps.values())], rows)


def concentration_table(study: StudyData, steps: dict[str, int]) -> Table:
    """List metrics of concentration and paths at some checkpoints."""
    effect = study.path_effect
    rows = [[title, *_metric_cells(study, name, Effect.TOTAL, steps)] for name, title in CONCENTRATION.items()]
    rows += [
        [f"{title} ({effect} effect)", *_metric_cells(study, name, effect, steps)] for name, title in PATHS.items()
    ]
    note = "Intervals lie around the value corrected for bias, so that a biased estimate may lie off their middle."
    return Table(["", *(f"step {step:,}" for step in steps.values())], rows, note)


def one_row(table: pl.DataFrame, **wanted: object) -> dict | None:
    """Give the first row whose columns have these values (None for null), or None if there is none."""
    rows = table.filter(pl.all_horizontal(pl.col(name).eq_missing(value) for name, value in wanted.items()))
    return rows.row(0, named=True) if len(rows) else None


def null_table(study: StudyData) -> Table:
    """Set the metrics of the last checkpoint beside those of null graphs."""
    step = int(study.steps[-1])
    rows = []
    for name, title in NAMES.items():
        effect = study.path_effect if name in COMPOSED else Effect.TOTAL
        value, *_ = _metric_cells(study, name, effect, {"last": step})
        rows.append([title, value, *(cell for null in NULLS for cell in _null_cells(study, name, null))])
    heads = [[f"{null} shuffle: mean [5\u201395 %]", "z", "p"] for null in NULLS]
    note = (
        "In square brackets the 90 % interval of the estimate, which is noise of the prompts, and the middle 90 % of "
        "the null graphs, which is chance of the wiring. p is that of this checkpoint alone; nulls.parquet has all "
        f"checkpoints and q. Triangles, paths and flow are of the {study.path_effect} effect, all else is of the total "
        "effect."
    )
    return Table(["", f"step {step:,}", *heads[0], *heads[1]], rows, note)


def _null_cells(study: StudyData, name: str, null: str) -> list[str]:
    """Mean and range of the null graphs of the last checkpoint, z and p."""
    found = {column: float(values[-1]) for column, values in study.null(name, null).items()}
    if found["kept"]:
        return ["kept", "", ""]
    if found["mean"] != found["mean"]:
        return ["not compared", "", ""]
    return [measured(found["mean"], found["low"], found["high"]), number(found["z"], 2), f"{found['p']:.2g}"]


def _metric_cells(study: StudyData, name: str, effect: Effect, steps: dict[str, int]) -> list[str]:
    rows = study.metrics.filter((pl.col("metric") == name) & (pl.col("effect") == effect))
    by_step = {row["step"]: row for row in rows.to_dicts()}
    return [measured(*(by_step[step][column] for column in ("estimate", "low", "high"))) for step in steps.values()]


def _ends_note(study: StudyData, role: str, steps: list[int]) -> str:
    """Give the raw strength of the embedding or the logits, which have one but no rank; empty without them."""
    rows = study.roles.filter(
        (pl.col("role") == role)
        & (pl.col("score_kind") == "raw")
        & pl.col("node").is_in([node.name for node in study.ends])
        & pl.col("estimate").is_not_null()
    )
    by_step = {row["step"]: row for row in rows.to_dicts()}
    if not by_step:
        return ""
    name = next(ENDS[node.kind] for node in study.ends if node.name == rows["node"][0])
    strengths = listed(
        f"{measured(*(by_step[step][column] for column in ('estimate', 'low', 'high')))} at step {step:,}"
        for step in steps
    )
    return f"Beside the ranking, {name}: raw strength {strengths}."


def _role_cell(found: list[dict], place: int) -> str:
    if place >= len(found):
        return ""
    row = found[place]
    score = measured(*(row[column] for column in ("estimate", "low", "high")))
    return f"{row['node']} {score}, {100 * row['holder_share']:.0f} %"


def _interval(found: Jackknife) -> str:
    return measured(float(found.estimate), float(found.low), float(found.high))
