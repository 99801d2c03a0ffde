"""What was done, in words: from the configuration and the sizes of the data."""

from pathlib import Path

import yaml

from phasegraph.errors import PhasegraphError
from phasegraph.report.study import StudyData
from phasegraph.report.words import listed, number, plural
from phasegraph.types import GROUPS, Effect, Intervention, Kind, Measure

REPLACED = {
    Intervention.MEAN: "its mean output over {reference} other prompts",
    Intervention.RESAMPLE: "its output on a matched corrupted prompt",
    Intervention.ZERO: "nothing",
}
"""Intervention -> what a component's contribution is replaced by."""

MEASURED = {
    Measure.VARIANCE: "the share of the later one's input-dependent signal that depends on the ablated one",
    Measure.CENTRED_COSINE: "1 minus the pooled cosine of the later one's centred outputs, ablated or not",
    Measure.COSINE: "1 minus the cosine of the later one's outputs, ablated or not, averaged over positions",
    Measure.L2: "the relative length of the later one's change of output, averaged over positions",
}
"""Measure -> what the weight of an edge to a component is."""

TASKS = {
    "uniform": (
        "random sequences of {segment} tokens, repeated once: only a model that looks back at the first copy can "
        "predict the second"
    ),
    "structured": (
        "random sequences of {segment} tokens with statistics of language (Zipf's law, likely successors), repeated "
        "once: only a model that looks back at the first copy can predict all of the second"
    ),
}
"""Tokens of the induction task -> its prompts."""

ROUGH = 128
"""Number of prompts below which intervals are called rough."""


def read_config(path: Path, study: str) -> tuple[dict, dict]:
    """Read the merged configuration.

    Parameters
    ----------
    path
        ``run_config.yaml``, with the keys ``series`` and ``studies``.
    study
        Name of the study.

    Returns
    -------
    series, study : dict
        The settings of the study's series and of the study.

    Raises
    ------
    PhasegraphError
        If the file is missing or has no such study.
    """
    try:
        config = yaml.safe_load(path.read_text())
        settings = config["studies"][study]
        series = config["series"][settings["series"]]
        if missing := {"task", "intervention", "measure"} - settings.keys():
            raise KeyError(min(missing))
    except FileNotFoundError:
        raise PhasegraphError(f"{path}: no such file; run the workflow until it is there") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PhasegraphError(
            f"{path}: not the merged configuration of study {study} ({error!r}); write it again"
        ) from error
    return series, settings


def method_texts(study: StudyData, settings: dict) -> list[str]:
    """Say what was done: paragraphs about the series, the intervention and the prompts.

    Parameters
    ----------
    study
        Its nodes, mask and manifest are read.
    settings
        The study's part of the configuration.
    """
    return [_series_text(study, settings["series"]), _edges_text(study, settings), _prompts_text(settings)]


def _series_text(study: StudyData, series: str) -> str:
    steps, tokens, arc = study.steps, study.manifest["tokens"], study.manifest["arc_length"]
    seen = f" ({tokens[-1]:,.0f} tokens)" if tokens[-1] == tokens[-1] else ""
    there = int(study.series["used"].sum())
    count = "count" if there > 1 else "counts"
    looked_at = "" if len(steps) == there else f"; this study looks at {len(steps):,} of them"
    return (
        f"The series {series} has {plural(there, 'checkpoint')} that {count}{looked_at}, from step {steps[0]:,} to "
        f"step {steps[-1]:,}{seen}. From the first to the last its weights travel a distance of "
        f"{number(arc[-1] - arc[0])} (sum of the Euclidean distances between neighbours in the series); rates of "
        "change are taken per unit of this distance, because per training step they would follow the learning rate. "
        "What is tested for change is the rate of each block of edges, from the heads or the MLPs of one depth to "
        "those of another."
    )


def _edges_text(study: StudyData, settings: dict) -> str:
    heads, mlps = (sum(node.kind is kind for node in study.nodes) for kind in (Kind.HEAD, Kind.MLP))
    layers = max(node.layer for node in study.nodes if study.components[node.index]) + 1
    replaced = REPLACED[Intervention(settings["intervention"])].format(
        reference=settings["task"].get("reference", "the")
    )
    effects = "With the total effect, the rest of the network reacts."
    if study.path_effect is Effect.DIRECT:
        effects += (
            " With the direct effect, only the path from the source through the residual stream to the target "
            "changes. Strengths use the total effect, paths the direct one."
        )
    else:
        effects += " Direct effects were not measured."
    return (
        f"At every checkpoint each of the {plural(heads, 'attention head')} and {plural(mlps, 'MLP')} in "
        f"{plural(layers, 'layer')} is ablated in turn: its contribution to the residual stream is replaced by "
        f"{replaced}. The weight of the edge from it to a later component is "
        f"{MEASURED[Measure(settings['measure'])]}. {_counts_text(study)} {effects}"
    )


def _counts_text(study: StudyData) -> str:
    """Say how many edges are possible, and what embedding and logits are where they are nodes."""
    inner = int(study.inner_mask.sum())
    if not study.ends:
        return f"{plural(inner, 'edge').capitalize()} are possible."
    measured = {Kind.EMBED: "the embedding is ablated in the same way", Kind.LOGITS: "the logits are observed as well"}
    outer = plural(int(study.mask.sum()) - inner, "edge")
    what = listed(measured[node.kind] for node in study.ends)
    touch = " or ".join(
        {Kind.EMBED: "leave the embedding", Kind.LOGITS: "reach the logits"}[n.kind] for n in study.ends
    )
    return (
        f"{what[0].upper()}{what[1:]}. {plural(inner, 'edge').capitalize()} between components are possible, and "
        f"{outer} that {touch}. Metrics, distances, phases and rankings are those of the edges between components, so "
        "that they do not depend on what is measured besides."
    )


def _prompts_text(settings: dict) -> str:
    task = settings["task"]
    what = TASKS[task.get("tokens", "uniform")].format(**task)
    return (
        f"The {task['prompts']:,} prompts are {what}. They are the same at every checkpoint and form {GROUPS} "
        "groups; everything is computed from all prompts and again without each group, which gives every number its "
        "90 % interval (delete-group jackknife), written [low, high]."
    )
