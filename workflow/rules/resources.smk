"""What jobs need: memory, minutes and GPUs by the size of the model, more with every attempt, and which share a job.

Nothing here knows a cluster. Jobs of one group that hang together are one job of a cluster (a run on one machine takes
no notice): a training with its audit, a shard of checkpoints with their graphs, and all that follows for a study.
"""

from phasegraph import jobs

DEVICE = config["model"]["device"]
BUDGET = config["model"]["memory_budget"]
GPUS = jobs.gpus(DEVICE)
# By the configuration alone, since the Snakemakes on all nodes must come to the same shards.
EXPECTED = "cuda" if DEVICE == "cuda" else "cpu"
SHARDS = {
    name: jobs.shards(
        STUDY_STEPS[name],
        jobs.seconds_each(PLANS[study["series"]].size, study, EXPECTED),
        config["model"]["seconds_per_job"],
    )
    for name, study in STUDIES.items()
}


def keep_going_inside():
    """Have the Snakemake that runs a group inside of a cluster's job go on when one of its jobs fails.

    It is not told to (Snakemake's issue 2508), and one checkpoint that fails would leave the rest of its shard
    unmeasured. The settings are there when the jobs are made, and no sooner.
    """
    if workflow.remote_exec and workflow.execution_settings is not None:
        workflow.execution_settings.keep_going = True


def shard_of(wildcards):
    """The results of the checkpoints of a shard."""
    keep_going_inside()
    folder = f"results/{wildcards.study}"
    direct = [".direct.npy"] * STUDIES[wildcards.study]["direct"]
    return [
        name
        for step in SHARDS[wildcards.study][int(wildcards.first)]
        for name in [
            *(
                f"{folder}/edges/{step}{ending}"
                for ending in (".npy", *direct, ".more.npz")
            ),
            f"{folder}/behaviour/{step}.npz",
            f"{folder}/network/{step}.npz",
        ]
    ]


def shards_of(wildcards):
    """What is recorded of the shards of a study; a checkpoint of its own needs nothing that ties it to others."""
    return [
        f"results/{wildcards.study}/shards/{first}.sha256"
        for first, steps in SHARDS[wildcards.study].items()
        if len(steps) > 1
    ]


def page_group(wildcards):
    """Which job of a cluster the figures and the page of a study belong to.

    That of all that follows for the study; but those of a set wait for what was found in its other studies, and a group
    must not wait for itself.
    """
    return "page" if wildcards.study in SET_OF else "study"


def edges_memory(wildcards, attempt):
    """MiB of a measurement."""
    study = STUDIES[wildcards.study]
    return attempt * jobs.edges_mib(PLANS[study["series"]].size, study, BUDGET)


def edges_minutes(wildcards, attempt):
    """Minutes of a measurement."""
    study = STUDIES[wildcards.study]
    return attempt * jobs.edges_minutes(PLANS[study["series"]].size, study, EXPECTED)


def how_of(wildcards, output):
    """Device and memory of the engine, as options; formally of the output, so that they are no reason to run again."""
    return f"--device {DEVICE} --memory-budget {BUDGET}"


def graph_memory(wildcards, attempt):
    """MiB of what looks at the graphs of one checkpoint."""
    study = STUDIES[wildcards.study]
    return attempt * jobs.graphs_mib(PLANS[study["series"]].size, study, 1, 8)


def graph_minutes(wildcards, attempt):
    """Minutes of what looks at the graphs of one checkpoint."""
    study = STUDIES[wildcards.study]
    return attempt * jobs.graph_minutes(PLANS[study["series"]].size, study)


def graphs_memory(wildcards, attempt):
    """MiB of what looks at the graphs of all checkpoints."""
    plan, study = plan_of_study(wildcards), STUDIES[wildcards.study]
    checkpoints = len(STUDY_STEPS[wildcards.study])
    return attempt * jobs.graphs_mib(plan.size, study, checkpoints, 1)


def families_memory(wildcards, attempt):
    """MiB of what compares the graphs of two studies, one checkpoint at a time."""
    study = STUDIES[wildcards.study]
    return attempt * jobs.graphs_mib(PLANS[study["series"]].size, study, 2, 8)


def model_memory(wildcards, attempt):
    """MiB of what loads one model of a study."""
    return attempt * jobs.weights_mib(plan_of_study(wildcards).size, 3)


def pair_memory(wildcards, attempt):
    """MiB of what compares two checkpoints of a series."""
    return attempt * jobs.weights_mib(PLANS[wildcards.series].size, 3)


def training_memory(wildcards, attempt):
    """MiB of the embedded training: weights, gradients, two moments, and activations."""
    return attempt * (jobs.weights_mib(PLANS[wildcards.series].size, 4) + 500)


def training_minutes(wildcards, attempt):
    """Minutes of one job of a training: the first does it all, but which that is nobody knows."""
    return attempt * (2 + 60 // len(PLANS[wildcards.series].steps))


def grown(mib):
    """Make a resource function: a number that suffices nearly always, and more if it did not."""

    def resource(wildcards, attempt):
        return attempt * (jobs.AROUND + mib)

    return resource
