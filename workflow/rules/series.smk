"""Stage series: the checkpoints of a training run, and what the audit says about each.

Inputs: the configuration; of a hub the repository, of a directory its files in place.
Outputs, in results/series/<series>/: checkpoints/<step>/{config.json, model.safetensors} (but of a directory),
series.tsv, audit.json.
Beside them lie what outlives reruns: training/, the store of the embedded training, so that asking for other steps
trains only what is not there; pins.tsv, the commits of a hub's revisions; contents.json, what was read in a directory.
"""


rule train_checkpoint:
    """Train the embedded model, unless the store holds the step, and take this step's weights from there.

    The first job trains all steps; the others wait for it. A rule of its own for the training would have to be an
    input of this one that does not trigger it, and behind such an input Snakemake overlooks other changes.
    """
    output:
        weights="results/series/{series}/checkpoints/{step}/model.safetensors",
        architecture="results/series/{series}/checkpoints/{step}/config.json",
    log:
        "logs/train_checkpoint/{series}/{step}.log",
    wildcard_constraints:
        series=series_of("train"),
    priority: 2
    group:
        "training"
    conda:
        "../../envs/phasegraph.yaml"
    threads: training_threads_of
    resources:
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        threads=training_threads_of,
        recipe=recipe_of,
        # Of the outputs, formally: what depends on them is no reason to run again, and other steps are none.
        steps=lambda wildcards, output: ",".join(map(str, STEPS[wildcards.series])),
        code=TRAINING_CODE,
        trained=trained_weights_of,
        home="results/series/{series}",
    message:
        "Training {wildcards.series} up to step {wildcards.step}, if it is not there"
    shell:
        # The recipe's threads and not Snakemake's, since their number decides the last bits of every sum.
        "{{ test -f {params.trained}/model.safetensors -a -f {params.trained}/config.json ||"
        " OMP_NUM_THREADS={params.threads} python -m phasegraph.series train --recipe {params.recipe:q}"
        " --code {params.code} --steps {params.steps} --store {params.home}/training"
        " --log {params.home}/training.tsv 2>&1 | tee {log}; }}"
        " && {{ ln -f {params.trained}/model.safetensors {output.weights} 2>> {log}"
        " || {{ cp {params.trained}/model.safetensors {output.weights}.tmp"
        " && mv {output.weights}.tmp {output.weights}; }}; }}"
        " && cp {params.trained}/config.json {output.architecture}.tmp"
        " && mv {output.architecture}.tmp {output.architecture}"


rule fetch_checkpoint:
    """Fetch one commit's weights and configuration; what the repository lacks or has damaged is marked as such."""
    output:
        weights="results/series/{series}/checkpoints/{step}/model.safetensors",
        architecture="results/series/{series}/checkpoints/{step}/config.json",
    log:
        "logs/fetch_checkpoint/{series}/{step}.log",
    wildcard_constraints:
        series=alternatives([name for name in SERIES if keeps_weights(name)]),
    priority: 2
    localrule: True  # compute nodes often have no network
    conda:
        "../../envs/phasegraph.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        pin=pin_of,
        downloads="results/series/{series}/downloads",
    message:
        "Fetching {wildcards.series} at step {wildcards.step}"
    shell:
        "python -m phasegraph.warm phasegraph.series fetch {params.pin} --out $(dirname {output.weights})"
        " --downloads {params.downloads} --mark-faults > {log} 2>&1"


use rule fetch_checkpoint as fetch_checkpoint_for_now with:
    output:
        weights=temp("results/series/{series}/checkpoints/{step}/model.safetensors"),
        architecture=temp("results/series/{series}/checkpoints/{step}/config.json"),
    wildcard_constraints:
        series=alternatives(
            [
                name
                for name, plan in PLANS.items()
                if plan.pins and not keeps_weights(name)
            ]
        ),


rule fetch_tokenizer:
    """Fetch the tokenizer, once for all checkpoints: main may be empty, so from the first revision that has one."""
    output:
        "results/series/{series}/tokenizer/source.json",
    log:
        "logs/fetch_tokenizer/{series}.log",
    wildcard_constraints:
        series=series_of("hub"),
    localrule: True
    conda:
        "../../envs/phasegraph.yaml"
    params:
        pins="results/series/{series}/pins.tsv",
        downloads="results/series/{series}/downloads",
    message:
        "Fetching the tokenizer of {wildcards.series}"
    shell:
        "python -m phasegraph.warm phasegraph.series tokenizer --pins {params.pins} --out $(dirname {output})"
        " --downloads {params.downloads} > {log} 2>&1"


rule audit_series:
    """Write the manifest: what each checkpoint is, how far it lies from the one before, and what is wrong with it."""
    input:
        checkpoints=lambda wildcards: checkpoints_of(
            PLANS[wildcards.series], STEPS[wildcards.series]
        ),
        code=code_of("phasegraph.series.audit"),
    output:
        manifest="results/series/{series}/series.tsv",
        audit="results/series/{series}/audit.json",
    log:
        "logs/audit_series/{series}.log",
    priority: 1  # before the measurements, so that a series that is to be stopped is stopped early
    group:
        "training"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=pair_memory,
        runtime=30,
    params:
        checkpoints=lambda wildcards: steps_and_folders(
            PLANS[wildcards.series], STEPS[wildcards.series]
        ),
        contents=lambda wildcards: list(PLANS[wildcards.series].contents.values()),
        tokens=tokens_of,
        flagged=lambda wildcards: flagged(SERIES[wildcards.series]),
    message:
        "Auditing the checkpoints of {wildcards.series}"
    shell:
        "python -m phasegraph.warm phasegraph.series audit --out {output.manifest} --json {output.audit}"
        " --flagged {params.flagged} {params.tokens} {params.checkpoints:q} 2>&1 | tee {log}"
