# From a training run to a report: who influences whom in the model at every checkpoint, and when that changes.
# Read config/README.md for what can be set, and the rule files in the order in which they are included.
import gc
import time
from pathlib import Path

from snakemake.utils import min_version, validate

from phasegraph.summary import tell_summary

min_version("9.20")
BEGIN = time.time()
# What Snakemake makes when it plans stays. To look for garbage among millions of objects again and again takes a third
# of the time in a large study (benchmarks/dag.py).
gc.set_threshold(50_000, 50, 50)


# A study of one's own (--configfile) stands in the place of the demonstration instead of being merged into it.
if "studies" not in config and Path("config.yaml").exists():

    configfile: "config.yaml"


validate(config, "workflow/schemas/config.schema.yaml")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/series.smk"
include: "workflow/rules/edges.smk"
include: "workflow/rules/network.smk"
include: "workflow/rules/phases.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        expand("results/{study}/report.html", study=STUDIES),
        expand("results/{study}/run_config.yaml", study=STUDIES),
        expand("results/{study}/families.parquet", study=COMPARED),
        expand("results/sets/{set}/seeds.json", set=SETS),
        expand(
            "results/series/{series}/tokenizer/source.json",
            series=[name for name, plan in PLANS.items() if plan.pins],
        ),


onsuccess:
    tell_summary(BEGIN, [rule.name for rule in workflow.rules])


onerror:
    tell_summary(BEGIN, [rule.name for rule in workflow.rules])
