"""Stage phases: does the wiring change its regime, where, and is that more than smooth drift?

Inputs: results/<study>/{metrics,behaviour}.parquet, results/<study>/{replicates,blocks}.npz,
results/series/<series>/series.tsv.
Outputs: results/<study>/phases.json; for a set of seeds results/sets/<set>/seeds.json.
"""


rule find_phases:
    """Test for changes of regime, and set them beside the change of behaviour."""
    input:
        metrics="results/{study}/metrics.parquet",
        replicates="results/{study}/replicates.npz",
        blocks="results/{study}/blocks.npz",
        behaviour="results/{study}/behaviour.parquet",
        manifest=manifest_of,
        code=code_of("phasegraph.phases"),
    output:
        "results/{study}/phases.json",
    log:
        "logs/find_phases/{study}.log",
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(1500),
        runtime=30,
    params:
        options=phase_options_of,
    message:
        "Testing {wildcards.study} for changes of regime"
    shell:
        "python -m phasegraph.warm phasegraph.phases --metrics {input.metrics} --replicates {input.replicates}"
        " --blocks {input.blocks} --behaviour {input.behaviour} --manifest {input.manifest} --out {output} {params.options}"
        " > {log} 2>&1"


rule compare_seeds:
    """Look for the boundaries of every study of a set in the others."""
    input:
        phases=phases_of_set,
        code=code_of("phasegraph.phases.seeds"),
    output:
        "results/sets/{set}/seeds.json",
    log:
        "logs/compare_seeds/{set}.log",
    # In the group of the studies it would make one job of all of them.
    localrule: True  # it is done sooner than submitted
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(100),
        runtime=5,
    params:
        members=members_of,
    message:
        "Comparing the seeds of {wildcards.set}"
    shell:
        "python -m phasegraph.phases.seeds --phases {input.phases} {params.members} --out {output} > {log} 2>&1"
