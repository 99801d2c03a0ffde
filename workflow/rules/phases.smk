"""Stage phases: does the wiring change its regime, where, and is that more than smooth drift?

Inputs: results/<study>/{metrics,behaviour}.parquet, results/series/<series>/series.tsv.
Outputs: results/<study>/phases.json.
"""


rule find_phases:
    """Test for changes of regime, and set them beside the change of behaviour."""
    input:
        metrics="results/{study}/metrics.parquet",
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
        "python -m phasegraph.warm phasegraph.phases --metrics {input.metrics} --behaviour {input.behaviour}"
        " --manifest {input.manifest} --out {output} {params.options} > {log} 2>&1"
