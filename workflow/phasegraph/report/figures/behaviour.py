"""Behaviour over structure: what the model can do, above how fast its wiring changes."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from phasegraph.report.marks import mark_phases, phase_handles
from phasegraph.report.study import StudyData
from phasegraph.report.style import GREY, INK, LINES, band, head_panel, log_scale, new_figure, step_axis, themed

LOSS_FIRST, LOSS_SECOND, ACCURACY, PREFIX, PREVIOUS = GREY, LINES[0], INK, LINES[1], LINES[2]


@themed
def draw(study: StudyData) -> Figure:
    """Draw losses, accuracy and head scores above churn per weight displacement and Gini, over training steps."""
    figure = new_figure(7.6)
    loss, skill, churn, gini = figure.subplots(4, 1, sharex=True, height_ratios=[1.1, 1.1, 1, 1])
    _draw_losses(loss, study)
    _draw_skill(skill, study)
    _draw_churn(churn, study)
    band(gini, study.steps, study.metric("gini"), LINES[0], "weights w")
    band(gini, study.steps, study.metric("gini_sqrt"), LINES[2], "√w")
    gini.set_ylabel("Gini")
    titles = ("Loss on the prompts", "Skill", "Speed of rewiring", "Concentration of edges")
    for axes, letter, title in zip((loss, skill, churn, gini), "abcd", titles, strict=True):
        head_panel(axes, letter, title, legend=True)
        mark_phases(axes, study.phases)
        step_axis(axes, study.steps, label=axes is gini, ticks=8)
    for axes, quantity in ((loss, "loss_second"), (skill, "prefix_matching")):
        _mark_behaviour(axes, study, quantity)
    triangle = Line2D(
        [], [], color=INK, marker="v", markersize=4, linestyle="", label="change of behaviour by the same test"
    )
    handles = phase_handles(study.phases)
    if any((study.phases.get("behaviour") or {}).get("boundaries", {}).values()):
        handles.append(triangle)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_losses(axes: Axes, study: StudyData) -> None:
    band(axes, study.steps, study.quantity("loss_first"), LOSS_FIRST, "first copy")
    band(axes, study.steps, study.quantity("loss_second"), LOSS_SECOND, "second copy")
    axes.set_ylabel("cross-entropy (nats)")
    axes.set_ylim(bottom=0)


def _draw_skill(axes: Axes, study: StudyData) -> None:
    """Accuracy, and the two attention scores of every head: thin lines, labelled once."""
    for quantity, colour, dashes, label in (
        ("previous_token", PREVIOUS, (0, (4, 1.5)), "previous-token score of each head"),
        ("prefix_matching", PREFIX, "-", "prefix-matching score"),
    ):
        _, scores = study.node_scores(quantity)
        lines = axes.plot(study.steps, scores["estimate"].T, color=colour, linestyle=dashes, linewidth=0.8)
        lines[0].set_label(label)
    band(axes, study.steps, study.quantity("accuracy"), ACCURACY, "accuracy")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1)


def _draw_churn(axes: Axes, study: StudyData) -> None:
    moved, churn, floor = study.moved, study.metric("churn"), study.metric("noise_floor")
    band(axes, study.steps, {column: values / moved for column, values in churn.items()}, LINES[0], "churn")
    axes.plot(study.steps, floor["estimate"] / moved, color=GREY, linewidth=0.8, label="noise floor")
    log_scale(axes, churn["estimate"] / moved, floor["estimate"] / moved)
    axes.set_ylabel("(1 − Spearman's ρ)\nper unit moved")


def _mark_behaviour(axes: Axes, study: StudyData, quantity: str) -> None:
    found = (study.phases.get("behaviour") or {}).get("boundaries", {}).get(quantity, [])
    for boundary in found:
        axes.plot(
            boundary["step"],
            1,
            "v",
            color=INK,
            markersize=5,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )
