"""Films the wiring of a Transformer while it learns.

The package has one folder per stage of the workflow, and data flow downwards through them: ``series`` (which
checkpoints), ``model`` (a runnable model and its nodes), ``tasks`` (prompts and behaviour), ``edges`` (who
influences whom), ``network`` (what the graph looks like), ``phases`` (when it changes) and ``report``.
Importing this module imports nothing else, so that Snakemake can read it cheaply.
"""

__version__ = "0.1.0"
