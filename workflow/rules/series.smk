"""Stage series: the checkpoints of a training run, and their manifest.

Inputs: the recipe in the configuration (the embedded training).
Outputs: results/series/<series>/training.tsv, checkpoints/<step>/{config.json, model.safetensors}, series.tsv.
The trained weights lie in results/series/<series>/training/, a store that outlives reruns: asking for other steps
trains only what is not there.
"""


rule train_series:
    """Train the embedded model and keep the weights of the wanted steps in the store."""
    input:
        code=code_of("phasegraph.series.training"),
    output:
        log="results/series/{series}/training.tsv",
    log:
        "logs/train_series/{series}.log",
    benchmark:
        "logs/train_series/{series}.tsv"
    conda:
        "../../envs/phasegraph.yaml"
    threads: training_threads_of
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        threads=training_threads_of,
        recipe=recipe_of,
        steps=steps_of,
        code=TRAINING_CODE,
        store=subpath(output.log, parent=True),
    message:
        "Training the series {wildcards.series}"
    shell:
        # The recipe's threads and not Snakemake's, since their number decides the last bits of every sum.
        "OMP_NUM_THREADS={params.threads} python -m phasegraph.series train --recipe {params.recipe:q} --code {params.code}"
        " --steps {params.steps} --store {params.store}/training --log {output.log} 2>&1 | tee {log}"


rule save_checkpoint:
    """Put the weights of one step into a folder of their own, without a second copy on the disk."""
    input:
        # ancient: a training that only adds steps leaves the saved ones alone; a new recipe shows in the parameters
        log=ancient("results/series/{series}/training.tsv"),
    output:
        weights="results/series/{series}/checkpoints/{step}/model.safetensors",
        architecture="results/series/{series}/checkpoints/{step}/config.json",
    log:
        "logs/save_checkpoint/{series}/{step}.log",
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=500,
        runtime=2,
    params:
        trained=trained_weights_of,
    message:
        "Saving {wildcards.series} at step {wildcards.step}"
    shell:
        "{{ ln -f {params.trained}/model.safetensors {output.weights}"
        " || cp {params.trained}/model.safetensors {output.weights}; }} 2> {log}"
        " && cp {params.trained}/config.json {output.architecture} 2>> {log}"
        " || {{ echo 'the store has lost this step; delete {input.log} and run again' | tee -a {log} >&2; exit 1; }}"


rule list_series:
    """Write the manifest: what each checkpoint is, and how far it lies from the one before."""
    input:
        checkpoints=checkpoints_of_series,
        code=code_of("phasegraph.series.manifest"),
    output:
        "results/series/{series}/series.tsv",
    log:
        "logs/list_series/{series}.log",
    priority: 1  # beside the measurements instead of after them
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folders=lambda wildcards, input: [
            str(Path(file).parent) for file in input.checkpoints
        ],
        tokens_per_step=tokens_per_step_of,
    message:
        "Listing the checkpoints of {wildcards.series}"
    shell:
        "python -m phasegraph.warm phasegraph.series manifest --out {output}"
        " --tokens-per-step {params.tokens_per_step} {params.folders:q} > {log} 2>&1"
