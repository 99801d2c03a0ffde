"""Stage network: what the graph of every checkpoint looks like, and how it changes from checkpoint to checkpoint.

Inputs: series.tsv; in results/<study>/: edges/<step>.{npy, direct.npy, more.npz}, nodes.tsv, mask.npy.
Outputs, in results/<study>/: network/<step>.npz, metrics.parquet, roles.parquet, distances.npy, replicates.npz.
"""


rule measure_network:
    """Compute one checkpoint's metrics and node scores, with their leave-one-group-out replicates."""
    input:
        unpack(edges_of),
        more="results/{study}/edges/{step}.more.npz",
        code=code_of("phasegraph.network.checkpoint"),
    output:
        "results/{study}/network/{step}.npz",
    log:
        "logs/measure_network/{study}/{step}.log",
    conda:
        "../../envs/phasegraph.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        direct=lambda wildcards, input: (
            f"--direct {input.direct}" if "direct" in input.keys() else ""
        ),
    message:
        "Computing the network metrics of {wildcards.study} at step {wildcards.step}"
    shell:
        "python -m phasegraph.warm phasegraph.network checkpoint --edges {input.total} {params.direct}"
        " --graph {input.more} --out {output} > {log} 2>&1"


rule gather_network:
    """Collect metrics and roles of all checkpoints, and the distances between them."""
    input:
        network=every_step("results/{study}/network/{step}.npz"),
        edges=every_step("results/{study}/edges/{step}.npy"),
        manifest=manifest_of,
        nodes="results/{study}/nodes.tsv",
        mask="results/{study}/mask.npy",
        code=code_of("phasegraph.network.gather"),
    output:
        metrics="results/{study}/metrics.parquet",
        roles="results/{study}/roles.parquet",
        distances="results/{study}/distances.npy",
        replicates="results/{study}/replicates.npz",
    log:
        "logs/gather_network/{study}.log",
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=2000,
        runtime=20,
    message:
        "Gathering the network metrics of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.network gather --network {input.network} --edges {input.edges}"
        " --manifest {input.manifest} --nodes {input.nodes} --mask {input.mask} --metrics {output.metrics} --roles {output.roles}"
        " --distances {output.distances} --replicates {output.replicates} > {log} 2>&1"
