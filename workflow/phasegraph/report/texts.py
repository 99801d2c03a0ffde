"""Sentences about roles, edges and noise, generated from their numbers for every case."""

from typing import NamedTuple

import numpy as np

from phasegraph.jackknife import Jackknife
from phasegraph.report.families import ALONE, TWO
from phasegraph.report.induction import ATTENDS, Circuit, Head, circuit_edges
from phasegraph.report.method import ROUGH
from phasegraph.report.study import StudyData
from phasegraph.report.words import listed, measured, number, plural
from phasegraph.types import Effect, Kind


class Interval(NamedTuple):
    """An estimate with its interval."""

    estimate: float
    low: float
    high: float


KINDS = {"raw": "by raw strength", "block": "by strength against peers"}


def skill_text(study: StudyData) -> str:
    """Say what the model can do at the last checkpoint."""

    def at_last(quantity: str, largest: float = np.inf) -> str:
        values = study.quantity(quantity)
        value, low, high = (float(values[column][-1]) for column in ("estimate", "low", "high"))
        return measured(value, low, min(high, largest))  # an interval of a share may reach beyond 1

    return (
        f"At the last checkpoint the loss is {at_last('loss_second')} nats on the second copy and "
        f"{at_last('loss_first')} nats on the first, and a share of {at_last('accuracy', 1)} of the second copy's "
        "tokens is predicted best."
    )


def ends_text(study: StudyData) -> str:
    """Say that embedding and logits are not ranked, and why; empty where neither is a node."""
    if not study.ends:
        return ""
    why = {
        Kind.EMBED: "The embedding is not ranked among the spreaders, because everything depends on it",
        Kind.LOGITS: "The logits are not ranked among the gatherers, because they depend on everything",
    }
    return " ".join(f"{why[node.kind]}; see the note below the table." for node in study.ends)


def agreement_text(agreement: dict[tuple[str, str], Jackknife], early: int, late: int) -> str:
    """Say how far the rankings at two checkpoints agree; see `phasegraph.report.findings.ranking_agreement`."""
    known = {key: value for key, value in agreement.items() if np.isfinite(value.estimate)}
    if not known or early == late:
        return ""
    parts = [f"{_interval(value)} for {role}s {KINDS[kind]}" for (role, kind), value in known.items()]
    return (
        f"Between step {early:,} and step {late:,} the rankings agree with a τ of {listed(parts)}; 1 is the same "
        "ranking, unrelated ones give 0 on average."
    )


def circuit_text(circuit: Circuit, step: int) -> str:
    """Say which heads look back, by their attention alone, at the checkpoint `step`."""
    found = f"At step {step:,} the head that attends most to the token before is {_head(circuit.previous)}"
    if circuit.induction:
        heads = listed(_head(head) for head in circuit.induction)
        return f"{found}. Of the heads that it can reach, {heads} attend to what followed a token's first occurrence."
    if circuit.strongest.score < ATTENDS:
        return (
            f"{found}. No head attends to what followed a token's first occurrence with a mean share of {ATTENDS:g} "
            f"or more; the largest is that of {_head(circuit.strongest)}. So there are no edges to follow."
        )
    return (
        f"{found}. The heads that attend to what followed a token's first occurrence, first of them "
        f"{_head(circuit.strongest)}, lie where it cannot reach them. So there are no edges to follow."
    )


def circuit_change_text(study: StudyData, circuit: Circuit, steps: dict[str, int]) -> str:
    """Say how the mean edge of the circuit changes between the first and the last of some checkpoints."""
    early, late = next(iter(steps.values())), list(steps.values())[-1]
    before, after = (circuit_edges(study, circuit, step, Effect.TOTAL) for step in (early, late))
    text = (
        f"The mean weight of the edges from {circuit.previous.node.name} to them "
        f"{_trend(before['mean'], after['mean'])} from {_interval(before['mean'])} at step {early:,} to "
        f"{_interval(after['mean'])} at step {late:,} (total effect)"
    )
    if "peers" in before:
        text += (
            f"; that of the edges to the same heads from {_heads(circuit.peers)} of the same layer, which "
            f"{'does' if len(circuit.peers) == 1 else 'do'} not look back, {_trend(before['peers'], after['peers'])} "
            f"from {_interval(before['peers'])} to {_interval(after['peers'])}"
        )
    return f"{text}."


def noise_text(study: StudyData, moving: tuple[int, int]) -> str:
    """Say how large changes are beside the noise of the prompts; `moving` of `findings.moving_checkpoints`."""
    churn, floor = study.metric("churn")["estimate"], study.metric("noise_floor")["estimate"]
    above, known = moving
    if not known:
        return "With one checkpoint there is no change to compare with noise."
    return (
        f"From one checkpoint to the next the wiring changes by a 1 − ρ of {number(float(np.nanmedian(churn)))} "
        f"(median over the run; ρ is Spearman's correlation over all possible edges{_between(study)}). Two halves of "
        f"the prompts at one checkpoint differ by {number(float(np.nanmedian(floor)))} (median noise floor). Both "
        "checkpoints see the same prompts, so most of that noise cancels between them; churn beyond noise compares one "
        f"half of the prompts before with the other half after, and is above 0 with its whole interval at {above:,} of "
        f"{plural(known, 'checkpoint')}."
    )


def concentration_text(study: StudyData, steps: dict[str, int]) -> str:
    """Say how concentration changes between the first and the last of some checkpoints."""
    early, late = next(iter(steps.values())), list(steps.values())[-1]
    possible = f"{int(study.inner_mask.sum()):,} possible ones{_between(study)}"
    names = {
        "gini": "the Gini coefficient of the weights",
        "gini_sqrt": "that of their square roots",
        "n_eff_entropy": f"the effective number of edges (of {possible})",
    }
    changes = []
    for metric, name in names.items():
        before, after = (_metric_at(study, metric, step) for step in (early, late))
        changes.append(f"{name} {_trend(before, after)} from {_interval(before)} to {_interval(after)}")
    return f"Between step {early:,} and step {late:,} {listed(changes)}."


def limit_texts(study: StudyData, settings: dict) -> list[str]:
    """List what this study cannot show."""
    texts = [
        "One series and one task: nothing here says what another seed, model or task would show.",
        TWO if settings.get("compare_with") else ALONE,
        "The layer of a component explains most of its raw strength, since an early one has more targets and a late "
        "one more sources. Strength against peers removes that, and with it whatever a whole layer has in common.",
    ]
    if study.path_effect is Effect.DIRECT:
        texts.append(
            "Efficiency and betweenness compose edges and use direct effects; everything else uses total effects."
        )
    else:
        texts.append(
            "Warning: direct effects were not measured, so efficiency and betweenness use total effects, on which a "
            "path counts every detour twice. No path of this study may be read as a circuit."
        )
    if settings["task"]["prompts"] < ROUGH:
        texts.append(f"With {settings['task']['prompts']} prompts, fewer than {ROUGH}, intervals are rough.")
    if settings["measure"] == "cosine":
        texts.append(
            "The cosine of raw outputs follows a constant vector where that holds most of an output's energy, as it "
            "does early in training."
        )
    if settings.get("dtype", "float32") != "float32":
        texts.append(
            f"The model was run in {settings['dtype']}. Its rounding moves edges, weak ones most, and is the "
            "same for all prompts, so the intervals do not show it; config/README.md states how large it was on a "
            "trained model."
        )
    dropped = (study.phases.get("columns") or {}).get("dropped") or {}
    texts += [f"Not in the change test: {name} ({why})." for name, why in dropped.items()]
    return [
        *texts,
        "Left out, because they say nothing on a dense graph without cycles: reciprocity and flow hierarchy "
        "(constant), eigenvector centrality (all eigenvalues are 0), unweighted degree and density (training does "
        "not change them), PageRank (nearly the layer), and diameter (one weak edge decides it).",
        "Null models answer for one metric at a time. q allows for the number of checkpoints but not for the number of "
        "metrics, and neighbouring checkpoints are nearly the same graph, so that many of them are no more evidence "
        "than a few. z means what it seems to only as far as the null values are normally distributed.",
        "The layer-block shuffle keeps all weights and the ratio shuffle nearly does. Metrics of the weights alone, "
        "such as their Gini coefficient, are therefore not tested: where they are beyond the ratio shuffle, it did not "
        "quite keep the weights.",
        "An edge says that a component's output depends on another's on these prompts; it does not say what is "
        "passed on.",
    ]


def _between(study: StudyData) -> str:
    return " between components" if study.ends else ""


def _metric_at(study: StudyData, metric: str, step: int) -> Interval:
    values, place = study.metric(metric), int(np.searchsorted(study.steps, step))
    return Interval(*(float(values[column][place]) for column in ("estimate", "low", "high")))


def _trend(before: Jackknife | Interval, after: Jackknife | Interval) -> str:
    if after.low > before.high:
        return "rises"
    if after.high < before.low:
        return "falls"
    return "goes, with overlapping intervals,"


def _interval(found: Jackknife | Interval) -> str:
    return measured(float(found.estimate), float(found.low), float(found.high))


def _head(head: Head) -> str:
    return f"{head.node.name} ({measured(head.score, head.low, head.high)})"


def _heads(heads: list[Head]) -> str:
    return listed(head.node.name for head in heads)
