"""Stage network: what the graph of every checkpoint looks like, and how it changes from checkpoint to checkpoint.

Inputs: series.tsv; in results/<study>/: edges/<step>.{npy, direct.npy, more.npz}, nodes.tsv, mask.npy.
Outputs, in results/<study>/: network/<step>.npz, shards/<first>.sha256, metrics.parquet, roles.parquet, stability.parquet,
nulls.parquet, communities.parquet, centralities.parquet, widest_paths.parquet, distances.npy, excess.npy, replicates.npz,
blocks.npz, tails.parquet, backbones/<step>.<backbone>.graphml;
families.parquet in a study that is compared with one of other prompts.
"""


rule measure_network:
    """Compute one checkpoint's metrics and node scores, with replicates and null graphs, and write its backbones."""
    input:
        unpack(edges_of),
        more="results/{study}/edges/{step}.more.npz",
    output:
        network="results/{study}/network/{step}.npz",
        backbones=expand(
            "results/{{study}}/backbones/{{step}}.{backbone}.graphml",
            backbone=list(Backbone),
        ),
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
        nulls=nulls_of,
        direct=lambda wildcards, input: (
            f"--direct {input.direct}" if "direct" in input.keys() else ""
        ),
    message:
        "Computing the network metrics of {wildcards.study} at step {wildcards.step}"
    shell:
        "python -m phasegraph.warm phasegraph.network checkpoint --edges {input.total} {params.direct}"
        " --graph {input.more} --out {output.network} --backbones results/{wildcards.study}/backbones {params.nulls}"
        " > {log} 2>&1"


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
    """Collect metrics and roles of all checkpoints, how long rankings last, and the distances between checkpoints."""
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
        stability="results/{study}/stability.parquet",
        distances="results/{study}/distances.npy",
        excess="results/{study}/excess.npy",
        replicates="results/{study}/replicates.npz",
        blocks="results/{study}/blocks.npz",
    log:
        "logs/gather_network/{study}.log",
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=graphs_memory,
        runtime=lambda wildcards, attempt: 30 * attempt,
    message:
        "Gathering the network metrics of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.network gather --network {input.network} --edges {input.edges}"
        " --manifest {input.manifest} --nodes {input.nodes} --mask {input.mask} --metrics {output.metrics} --roles {output.roles}"
        " --stability {output.stability} --distances {output.distances} --excess {output.excess}"
        " --replicates {output.replicates} --blocks {output.blocks} > {log} 2>&1"


rule gather_details:
    """Collect what else is known of the graphs: null models, communities, further centralities, widest paths."""
    input:
        network=every_step("results/{study}/network/{step}.npz"),
        shards=shards_of,
        manifest=manifest_of,
        nodes="results/{study}/nodes.tsv",
        code=code_of("phasegraph.network.details"),
    output:
        nulls="results/{study}/nulls.parquet",
        communities="results/{study}/communities.parquet",
        centralities="results/{study}/centralities.parquet",
        widest_paths="results/{study}/widest_paths.parquet",
    log:
        "logs/gather_details/{study}.log",
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(1500),
        runtime=20,
    message:
        "Gathering null models and communities of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.network details --network {input.network} --manifest {input.manifest}"
        " --nodes {input.nodes} --nulls {output.nulls} --communities {output.communities}"
        " --centralities {output.centralities} --widest-paths {output.widest_paths} > {log} 2>&1"


rule fit_tails:
    """Test what the tail of the edges' weights is, at checkpoints that are spread over the run."""
    input:
        edges=every_step("results/{study}/edges/{step}.npy"),
        shards=shards_of,
        manifest=manifest_of,
        nodes="results/{study}/nodes.tsv",
        mask="results/{study}/mask.npy",
        code=code_of("phasegraph.network.tails"),
    output:
        "results/{study}/tails.parquet",
    log:
        "logs/fit_tails/{study}.log",
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=graph_memory,
        runtime=20,
    message:
        "Fitting the tails of the weights of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.network tails --edges {input.edges}"
        " --manifest {input.manifest} --nodes {input.nodes} --mask {input.mask} --out {output} > {log} 2>&1"


rule compare_families:
    """Tell how much of the wiring is that of a study's prompts, by comparing it with a study of other ones."""
    input:
        unpack(compared_edges),
        manifest=manifest_of,
        nodes="results/{study}/nodes.tsv",
        mask="results/{study}/mask.npy",
        code=code_of("phasegraph.network.families"),
    output:
        "results/{study}/families.parquet",
    log:
        "logs/compare_families/{study}.log",
    wildcard_constraints:
        study=alternatives(COMPARED),
    group:
        "study"
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=families_memory,
        runtime=20,
    message:
        "Comparing the prompts of {wildcards.study} with others"
    shell:
        "python -m phasegraph.warm phasegraph.network families --edges {input.edges} --others {input.others}"
        " --manifest {input.manifest} --nodes {input.nodes} --mask {input.mask} --out {output} > {log} 2>&1"
