"""Stage report: the figures, the page that says in words what was found, and the configuration that led to it.

Inputs: everything in results/<study>/, results/series/<series>/series.tsv, results/sets/<set>/seeds.json.
Outputs, in results/<study>/: figures/<figure>.svg and .png, report.html, run_config.yaml.
"""


rule draw_figure:
    """Draw one figure."""
    input:
        unpack(figure_files),
        code=figure_code,
    output:
        svg=report(
            "results/{study}/figures/{figure}.svg",
            caption="../report/figure.rst",
            category=figure_category,
            labels={"study": "{study}", "figure": "{figure}"},
        ),
        png="results/{study}/figures/{figure}.png",
    log:
        "logs/draw_figure/{study}/{figure}.log",
    group:
        page_group
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(1500),
        runtime=5,
    params:
        seeds=seeds_option,
    message:
        "Drawing {wildcards.figure} of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.report figure {wildcards.figure} --study results/{wildcards.study}"
        " --manifest {input.manifest} {params.seeds} --svg {output.svg} --png {output.png} > {log} 2>&1"


rule write_config:
    """Keep the merged configuration beside the results that it led to."""
    output:
        "results/{study}/run_config.yaml",
    log:
        "logs/write_config/{study}.log",
    localrule: True  # it is done sooner than submitted
    conda:
        "../../envs/phasegraph.yaml"
    params:
        config=config_of,
    message:
        "Writing the configuration of {wildcards.study}"
    shell:
        "python -m phasegraph.config --config {params.config:q} --out {output} > {log} 2>&1"


rule write_report:
    """Say in words what was found, with all figures on one page."""
    input:
        unpack(page_files),
        figures=page_figures,
        config="results/{study}/run_config.yaml",
        code=code_of("phasegraph.report", also=REPORT_TEXTS),
    output:
        report(
            "results/{study}/report.html",
            category="Report",
            labels={"study": "{study}", "figure": "all"},
        ),
    log:
        "logs/write_report/{study}.log",
    group:
        page_group
    conda:
        "../../envs/phasegraph.yaml"
    resources:
        mem_mb=grown(1500),
        runtime=5,
    params:
        seeds=seeds_option,
    message:
        "Writing the report of {wildcards.study}"
    shell:
        "python -m phasegraph.warm phasegraph.report page --study results/{wildcards.study}"
        " --manifest {input.manifest} {params.seeds} --config {input.config}"
        " --figures {input.figures} --out {output} > {log} 2>&1"
