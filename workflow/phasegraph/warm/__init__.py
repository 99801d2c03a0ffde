"""``python -m phasegraph.warm MODULE ARGS...`` is ``python -m MODULE ARGS...`` without paying its imports again.

Importing torch and transformer_lens costs about ten CPU seconds, the work on a small checkpoint a tenth of one. So
the first job of a Snakemake run starts a server that imports the heavy libraries once; this and every later job is
forked from it. A job is still a process of its own, which imports phasegraph afresh after the fork: a crash stays in
the job, and edited code is never stale.

Working directory, environment, umask, standard streams, arguments, ``sys.path``, ignored signals, exit status and
death by a signal are those of the plain command. So are the bytes of the results: no library computes before the fork,
and where the server cannot stand for a fresh interpreter (another interpreter, ``sys.path`` or environment than the
job that started it), the job runs plainly and says why. What a job does not get from its own shell line are open files
beyond the standard three, resource limits and niceness. Without PYTHONHASHSEED a fresh interpreter draws a hash seed
for each job; the jobs of one server share one. The `benchmark:` of a rule sees the client, not the job: of its columns
only the seconds are the job's.

The server belongs to the nearest Snakemake process among the ancestors; there is one for each number of threads that
its rules have. It ends with its Snakemake, however that ends, and takes its jobs along. Without such an ancestor (by
hand), in a container, and where there is no Linux, the command is the plain one. Environment variables:

PHASEGRAPH_WARM
    ``0`` turns the server off.
PHASEGRAPH_WARM_PRELOAD
    Comma-separated modules to import instead of `phasegraph.warm.server.PRELOAD`.

`client` is what a job starts, `server` forks, `job` is the forked process.
"""
