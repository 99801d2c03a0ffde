"""Stage edges: every node of every checkpoint is ablated, and its influence on every other node measured.

Inputs: the checkpoints of a series, and its series.tsv for what is left out.
Of a checkpoint that cannot be measured (missing, truncated, NaNs) the results are empty files; the audit names it.
Outputs, in results/<study>/: nodes.tsv, mask.npy, edges/<step>.npy (total effects), edges/<step>.direct.npy,
edges/<step>.more.npz (all else that the study asks for), behaviour/<step>.npz and behaviour.parquet.
"""


rule list_nodes:
    """Write the nodes and the mask of possible edges, from the first checkpoint that counts."""
    input:
        checkpoints=lambda wildcards: checkpoints_of(
            plan_of_study(wildcards), STUDY_STEPS[wildcards.study]
        ),
        manifest=manifest_of,
        code=code_of("phasegraph.model"),
    output:
        nodes="results/{study}/nodes.tsv",
        mask="results/{study}/mask.npy",
    log:
        "logs/list_nodes/{study}.log",
    priority: 1  # it refuses models that cannot be measured
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=model_memory,
        runtime=10,
    params:
        checkpoints=lambda wildcards: steps_and_folders(
            plan_of_study(wildcards), STUDY_STEPS[wildcards.study]
        ),
        options=node_options_of,
    message:
        "Listing the nodes of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.model {params.checkpoints:q} --manifest {input.manifest}"
        " --nodes {output.nodes} --mask {output.mask} {params.options} > {log} 2>&1"


rule measure_edges:
    """Measure one checkpoint: its total effects and its behaviour."""
    input:
        checkpoint=checkpoint_of,
        gate=gate_of,
    output:
        total="results/{study}/edges/{step}.npy",
        more="results/{study}/edges/{step}.more.npz",
        behaviour="results/{study}/behaviour/{step}.npz",
    log:
        "logs/measure_edges/{study}/{step}.log",
    wildcard_constraints:
        study=alternatives(
            [name for name, study in STUDIES.items() if not study["direct"]]
        ),
    group:
        "shard"
    conda:
        "../../envs/phasegraph.yaml"
    threads: 1
    resources:
        mem_mb=edges_memory,
        runtime=edges_minutes,
        gpu=GPUS,
    params:
        checkpoint=folder_of,
        content=content_of,
        measurement=measurement_of,
        code=EDGES_CODE,
        direct="",
        how=how_of,
    message:
        "Measuring {wildcards.study} at step {wildcards.step}"
    shell:
        "python -m phasegraph.warm phasegraph.edges --checkpoint {params.checkpoint:q}"
        " --study {params.measurement:q} --total {output.total} {params.direct}"
        " --more {output.more} --behaviour {output.behaviour} --threads {threads} {params.how} > {log} 2>&1"


use rule measure_edges as measure_edges_direct with:
    output:
        total="results/{study}/edges/{step}.npy",
        direct="results/{study}/edges/{step}.direct.npy",
        more="results/{study}/edges/{step}.more.npz",
        behaviour="results/{study}/behaviour/{step}.npz",
    wildcard_constraints:
        study=alternatives([name for name, study in STUDIES.items() if study["direct"]]),
    params:
        checkpoint=folder_of,
        content=content_of,
        measurement=measurement_of,
        code=EDGES_CODE,
        direct="--direct results/{study}/edges/{step}.direct.npy",
        how=how_of,


rule gather_behaviour:
    """Collect the behaviour of all checkpoints in one table with intervals."""
    input:
        behaviour=every_step("results/{study}/behaviour/{step}.npz"),
        manifest=manifest_of,
        code=code_of("phasegraph.tasks"),
    output:
        "results/{study}/behaviour.parquet",
    log:
        "logs/gather_behaviour/{study}.log",
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=5,
    params:
        measurement=measurement_of,
    message:
        "Gathering the behaviour of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.tasks --out {output} --manifest {input.manifest}"
        " --study {params.measurement:q} {input.behaviour} > {log} 2>&1"
