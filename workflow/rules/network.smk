"""Stage network: what the graph of every checkpoint looks like, and how it changes from checkpoint to checkpoint.

Inputs: series.tsv; in results/<study>/: edges/<step>.{npy, direct.npy, more.npz}, nodes.tsv, mask.npy.
Outputs, in results/<study>/: network/<step>.npz, shards/<first>.sha256, metrics.parquet, roles.parquet, distances.npy, replicates.npz.
"""


rule measure_network:
    """Compute one checkpoint's metrics and node scores, with their leave-one-group-out replicates."""
    input:
        unpack(edges_of),
        more="results/{study}/edges/{step}.more.npz",
    output:
        "results/{study}/network/{step}.npz",
    log:
        "logs/measure_network/{study}/{step}.log",
    group:
        "shard"
    conda:
        "../../envs/phasegraph.yaml"
    threads: 1
    resources:
        mem_mb=graph_memory,
        runtime=graph_minutes,
    params:
        code=NETWORK_CODE,
        direct=lambda wildcards, input: (
            f"--direct {input.direct}" if "direct" in input.keys() else ""
        ),
    message:
        "Computing the network metrics of {wildcards.study} at step {wildcards.step}"
    shell:
        "python -m phasegraph.warm phasegraph.network checkpoint --edges {input.total} {params.direct}"
        " --graph {input.more} --out {output} > {log} 2>&1"


rule record_shard:
    """Record the SHA-256 of all that was measured on a shard of checkpoints (`sha256sum --check` reads it).

    It also ties the shard together, so that its jobs become one job of a cluster.
    """
    input:
        shard_of,
    output:
        "results/{study}/shards/{first}.sha256",
    log:
        "logs/record_shard/{study}/{first}.log",
    wildcard_constraints:
        first=r"\d+",
    group:
        "shard"
    conda:
        "../../envs/phasegraph.yaml"
    threads: 1
    resources:
        mem_mb=grown(100),
        runtime=1,
    message:
        "Recording the checkpoints of {wildcards.study} from step {wildcards.first} on"
    shell:
        "sha256sum {input} > {output}.tmp 2> {log} && mv {output}.tmp {output}"


rule gather_network:
    """Collect metrics and roles of all checkpoints, and the distances between them."""
    input:
        network=every_step("results/{study}/network/{step}.npz"),
        edges=every_step("results/{study}/edges/{step}.npy"),
        shards=shards_of,
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
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=graphs_memory,
        runtime=20,
    message:
        "Gathering the network metrics of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.network gather --network {input.network} --edges {input.edges}"
        " --manifest {input.manifest} --nodes {input.nodes} --mask {input.mask} --metrics {output.metrics} --roles {output.roles}"
        " --distances {output.distances} --replicates {output.replicates} > {log} 2>&1"
