"""Names and functions that the rule files share.

phasegraph itself does the work; this file only says which series and studies there are.
"""

from shlex import quote

from snakemake.exceptions import WorkflowError

import phasegraph
from phasegraph.config import (
    alternatives,
    flagged,
    measurement,
    node_options,
    part_of,
    plans,
    recipe,
    sets_of_studies,
    steps_of_studies,
    store_of,
    training_seed,
    training_threads,
)
from phasegraph.errors import PhasegraphError
from phasegraph.report.catalogue import (
    FIGURES,
    MANIFEST,
    PAGE_COMPARED_FILES,
    PAGE_DIRECT_FILES,
    PAGE_FILES,
    PAGE_SET_FILES,
    figures_of,
)
from phasegraph.reruns import code_digest, code_of
from phasegraph.types import Backbone

# An environment made by --sdm conda has the library's requirements, but not the library.
shell.prefix(
    f"export PYTHONPATH={quote(str(Path(phasegraph.__file__).parents[1]))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
)

SERIES = config["series"]
STUDIES = config["studies"]
SETS = config["sets"]
try:
    PLANS = plans(config)
    STUDY_STEPS = steps_of_studies(config, PLANS)
    SET_OF = sets_of_studies(config)
except PhasegraphError as error:
    raise WorkflowError(f"The configuration cannot be used: {error}") from None
STEPS = {name: plan.steps for name, plan in PLANS.items()}
COMPARED = [name for name, study in STUDIES.items() if study["compare_with"]]
REPORT_TEXTS = [
    "report/page.html.j2",
    "report/page.css",
    *(f"../report/{figure}.rst" for figure in FIGURES),
]
# Rules with a job for each checkpoint take their code as a digest: as inputs, forty files for each of thousands of jobs
# would double the time in which Snakemake plans a large study (benchmarks/dag.py).
TRAINING_CODE = code_digest("phasegraph.series.optimiser")[:12]
EDGES_CODE = code_digest("phasegraph.edges")[:12]
NETWORK_CODE = code_digest("phasegraph.network.checkpoint")[:12]


wildcard_constraints:
    series=alternatives(list(SERIES)),
    study=alternatives(list(STUDIES)),
    set=alternatives(list(SETS)),
    step=r"\d+",
    figure=alternatives(list(FIGURES)),


def series_of(source):
    """The series of a source, as a wildcard constraint."""
    return alternatives([name for name, plan in PLANS.items() if plan.source == source])


def plan_of_study(wildcards):
    """The plan of a study's series."""
    return PLANS[STUDIES[wildcards.study]["series"]]


def files_of(plan, step):
    """The files of a checkpoint, as inputs of a rule."""
    # What somebody else wrote is told by its content, which is a parameter, and not by its time.
    in_place = plan.source == "directory"
    return [ancient(file) if in_place else file for file in plan.files[step]]


def checkpoint_of(wildcards):
    """The files of the checkpoint that a study's step is measured on."""
    return files_of(plan_of_study(wildcards), int(wildcards.step))


def checkpoints_of(plan, steps):
    """The files of some checkpoints of a series, in the order of the steps."""
    return [file for step in steps for file in files_of(plan, step)]


def folder_of(wildcards):
    """Where the checkpoint lies that a study's step is measured on."""
    return str(plan_of_study(wildcards).folders[int(wildcards.step)])


def gate_of(wildcards):
    """What must be there before a study measures anything: the audit's consent, if it is asked for."""
    asked = SERIES[STUDIES[wildcards.study]["series"]]["flagged"] == "stop"
    return manifest_of(wildcards) if asked else []


def content_of(wildcards):
    """What is in a checkpoint, where that is known before the workflow makes it."""
    return plan_of_study(wildcards).contents[int(wildcards.step)]


def steps_and_folders(plan, steps):
    """Some checkpoints of a series, as command lines name them."""
    return [f"{step}={plan.folders[step]}" for step in steps]


def config_of(wildcards):
    """The part of the configuration that a study depends on, as JSON."""
    return part_of(config, wildcards.study)


def edges_of(wildcards):
    """The effects that a study measures at a step."""
    total = f"results/{wildcards.study}/edges/{wildcards.step}.npy"
    direct = f"results/{wildcards.study}/edges/{wildcards.step}.direct.npy"
    return (
        {"total": total, "direct": direct}
        if STUDIES[wildcards.study]["direct"]
        else {"total": total}
    )


def figure_category(wildcards):
    """Heading under which the report of Snakemake lists a figure."""
    return FIGURES[wildcards.figure].category


def figure_code(wildcards):
    """The library's files that draw a figure."""
    return code_of(f"phasegraph.report.figures.{wildcards.figure}")


def figure_files(wildcards):
    """What a figure is drawn from."""
    figure = FIGURES[wildcards.figure]
    direct = figure.direct_files * STUDIES[wildcards.study]["direct"]
    return study_files(wildcards, figure.files + direct) | {
        "seeds": set_files(wildcards, figure.set_files)
    }


def page_files(wildcards):
    """What the page of a study is written from."""
    study = STUDIES[wildcards.study]
    direct = PAGE_DIRECT_FILES * study["direct"]
    compared = PAGE_COMPARED_FILES * (wildcards.study in COMPARED)
    return study_files(wildcards, PAGE_FILES + direct + compared) | {
        "seeds": set_files(wildcards, PAGE_SET_FILES)
    }


def page_figures(wildcards):
    """The figures on the page of a study."""
    compared = wildcards.study in COMPARED
    return [
        f"results/{wildcards.study}/figures/{figure}.svg"
        for figure in figures_of(compared)
    ]


def study_files(wildcards, names):
    """Spell out names of the report's catalogue: the files of a study, and its manifest under a name of its own."""
    steps = STUDY_STEPS[wildcards.study]
    files = [
        f"results/{wildcards.study}/{name.format(step=step)}"
        for name in names
        if name != MANIFEST
        for step in (steps if "{step}" in name else steps[:1])
    ]
    return {"files": files, "manifest": manifest_of(wildcards)}


def set_files(wildcards, names):
    """Spell out names of the report's catalogue: files of the set that a study is a member of, none of others."""
    member = wildcards.study in SET_OF
    return [f"results/sets/{SET_OF[wildcards.study]}/{name}" for name in names * member]


def seeds_option(wildcards, input):
    """What the report is told of a study's set, as an option of the command line."""
    return f"--seeds {input.seeds}" if input.seeds else ""


def every_step(pattern):
    """Make an input function: the pattern for every step that the study looks at."""

    def files(wildcards):
        return [
            pattern.format(study=wildcards.study, step=step)
            for step in STUDY_STEPS[wildcards.study]
        ]

    return files


def compared_edges(wildcards):
    """The total effects of a study and of the one that it is compared with, at the steps that both look at."""
    names = wildcards.study, STUDIES[wildcards.study]["compare_with"]
    steps = sorted(set(STUDY_STEPS[names[0]]) & set(STUDY_STEPS[names[1]]))
    return {
        key: [f"results/{name}/edges/{step}.npy" for step in steps]
        for key, name in zip(("edges", "others"), names)
    }


def phases_of_set(wildcards):
    """What was found in each study of a set."""
    return [f"results/{study}/phases.json" for study in SETS[wildcards.set]]


def members_of(wildcards):
    """The studies of a set with their series and their seeds, as options of the command line."""
    members = SETS[wildcards.set]
    series = [STUDIES[study]["series"] for study in members]
    seeds = [training_seed(SERIES[name]) for name in series]
    return (
        f"--names {' '.join(members)} --series {' '.join(series)}"
        f" --seeds {' '.join('none' if seed is None else str(seed) for seed in seeds)}"
    )


def manifest_of(wildcards):
    """The manifest of a study's series."""
    return f"results/series/{STUDIES[wildcards.study]['series']}/series.tsv"


def recipe_of(wildcards):
    """The recipe by which a series is trained, as JSON."""
    return recipe(SERIES[wildcards.series])


def measurement_of(wildcards):
    """What a study measures, as JSON."""
    return measurement(STUDIES[wildcards.study])


def node_options_of(wildcards):
    """Which optional nodes a study has, as options of the command line."""
    return node_options(STUDIES[wildcards.study])


def nulls_of(wildcards):
    """The null graphs of a study, as options of the command line."""
    settings = STUDIES[wildcards.study]["network"]
    nulls = "" if settings["nulls"] == "auto" else f"--nulls {settings['nulls']}"
    return f"--seed {settings['seed']} {nulls}"


def phase_options_of(wildcards):
    """The settings of a study's change tests, as options of the command line."""
    settings = STUDIES[wildcards.study]["phases"]
    return " ".join(
        f"--{key.replace('_', '-')} {value}" for key, value in sorted(settings.items())
    )


def pin_of(wildcards):
    """Which commit a checkpoint on a hub is, as options of the command line; one that is missing is looked up."""
    pin = PLANS[wildcards.series].pins[int(wildcards.step)]
    if pin.commit:
        return f"--repo {quote(pin.repo)} --commit {pin.commit}"
    return f"--pins results/series/{wildcards.series}/pins.tsv --step {pin.step}"


def keeps_weights(series):
    """Whether fetched weights of a series stay on the disk."""
    return bool(PLANS[series].pins) and SERIES[series].get("keep", True)


def trained_weights_of(wildcards):
    """Where the training's store keeps the weights of a step."""
    digest = store_of(SERIES[wildcards.series], TRAINING_CODE)
    return f"results/series/{wildcards.series}/training/{digest}/{wildcards.step}"


def tokens_of(wildcards):
    """What is known of the tokens that a series sees, as options of the command line."""
    plan = PLANS[wildcards.series]
    per_step = f"--tokens-per-step {plan.tokens_per_step}"
    pins = f" --pins results/series/{wildcards.series}/pins.tsv"
    return per_step * (plan.tokens_per_step is not None) + pins * bool(plan.pins)


def training_threads_of(wildcards):
    """Number of threads by which the recipe of a series is trained."""
    return training_threads(SERIES[wildcards.series])
