from typing import TYPE_CHECKING

from phasegraph.errors import user_errors
from phasegraph.files import atomic
from phasegraph.tasks.gather import behaviour_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with user_errors(), atomic(snakemake.output[0]) as temporary:
    behaviour_table(snakemake.input.behaviour).write_parquet(temporary)
