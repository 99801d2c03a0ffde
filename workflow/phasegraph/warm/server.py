"""The server: imports the heavy libraries once and forks a job for each call.

It computes nothing: a computation could start threads or initialise a GPU, and neither survives a fork.
"""

import gc
import importlib
import os
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from phasegraph.warm.client import at_socket, folder_prefix, process_status
from phasegraph.warm.job import become_job

PRELOAD = (
    "torch",
    "transformer_lens.model_bridge",
    "transformer_lens.model_bridge.sources",
    "transformer_lens.model_bridge.sources.transformers_driver",  # a first build_bridge_from_module imports it
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.gpt_neox.modeling_gpt_neox",  # a first from_pretrained imports it, generation with it
    "safetensors.torch",
    "numpy",
    "scipy.stats",
    "igraph",
    "polars",  # starts its threads at the first query, not at import
    "seaborn",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "jinja2",
)
"""What jobs import; measured by the difference of `sys.modules` before and after loading a first GPT-NeoX."""


TABLES = (("transformers.conversion_mapping", "get_checkpoint_conversion_mapping", "gpt_neox"),)
"""Module, function, argument: tables of plain Python that the first call builds and the library keeps.

This one is 900 regular expressions, half of what it takes to load a small model.
"""


@dataclass(frozen=True)
class Job:
    """A forked job and its client."""

    pid: int
    """Process and process group of the job."""
    pidfd: int
    """Readable when the job has ended."""
    client: socket.socket
    """Hung up when the client has ended."""


def main(folder: str, owner: int, ready: int) -> None:
    """Serve the jobs of the Snakemake process `owner` until it ends.

    Parameters
    ----------
    folder
        Private folder for the socket; removed at the end.
    owner
        Process id.
    ready
        File descriptor on which one byte tells that calls may queue.
    """
    owner_fd = os.pidfd_open(owner)
    Path(folder, "socket").unlink(missing_ok=True)  # of a server that was killed
    listener = socket.socket(socket.AF_UNIX)
    at_socket(folder, listener.bind)
    listener.listen(1024)
    listener.setblocking(False)
    with suppress(BrokenPipeError):
        os.write(ready, b"+")
    os.close(ready)
    remove_orphans(Path(folder).parent)
    preload(owner_fd, folder)
    serve(listener, owner_fd)
    shutil.rmtree(folder, ignore_errors=True)


def remove_orphans(parent: Path) -> None:
    """Remove the folders of servers that were killed and whose Snakemake has ended."""
    for folder in parent.glob(f"{folder_prefix()}*"):
        owner, _, rest = folder.name.removeprefix(folder_prefix()).partition("-")
        try:
            alive = process_status(int(owner))[19] == rest.partition("-")[0]
        except FileNotFoundError:
            alive = False
        except ValueError:  # of a host whose name begins with this one's
            alive = True
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


def preload(owner_fd: int, folder: str) -> None:
    """Import the libraries; one that cannot be imported is left to the jobs, which say so themselves."""
    stop, stopped = os.pipe()
    watcher = threading.Thread(target=_end_with_owner, args=(owner_fd, stop, folder))
    watcher.start()
    names = os.environ.get("PHASEGRAPH_WARM_PRELOAD")
    for name in PRELOAD if names is None else filter(None, names.split(",")):
        try:
            importlib.import_module(name)
        except Exception:
            traceback.print_exc()
    for module, function, argument in TABLES:
        if module in sys.modules:
            with suppress(Exception):  # then the jobs build it
                getattr(sys.modules[module], function)(argument)
    _read_authorities()
    os.close(stopped)
    watcher.join()  # a process that forks has one thread
    os.close(stop)
    for name in [name for name in sys.modules if name.partition(".")[0] == "phasegraph"]:
        del sys.modules[name]  # jobs import their own
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False  # jobs need not take torch apart
    gc.collect()
    gc.freeze()  # a collection in a job would visit, and thereby copy, all that was imported here


def _read_authorities() -> None:
    """Let each job begin with an HTTP client of the hub that has read the certificate authorities: 0.05 CPU seconds.

    It has no connection yet. huggingface_hub asks for another one after it has closed the first.
    """
    if "huggingface_hub.utils._http" in sys.modules:
        with suppress(Exception):  # then the jobs make their own
            http = sys.modules["huggingface_hub.utils._http"]
            clients = [http.default_client_factory()]
            http.set_client_factory(lambda: clients.pop() if clients else http.default_client_factory())


def _end_with_owner(owner_fd: int, stop: int, folder: str) -> None:
    """End the server if Snakemake ends during the imports, which take seconds."""
    poller = select.poll()
    poller.register(owner_fd, select.POLLIN)
    poller.register(stop, select.POLLHUP)
    if owner_fd in dict(poller.poll()):
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def serve(listener: socket.socket, owner_fd: int) -> None:
    """Fork jobs and tell their ends, until the process of `owner_fd` ends; then kill what is left."""
    jobs: dict[int, Job] = {}  # by both of a job's file descriptors
    poller = select.poll()
    poller.register(owner_fd, select.POLLIN)
    poller.register(listener, select.POLLIN)
    try:
        while True:
            events = dict(poller.poll())
            if owner_fd in events:
                return
            for fd in events.keys() & jobs.keys():
                if fd in jobs:  # else the loop has just forgotten it
                    _tell_end(jobs, poller, fd) if fd == jobs[fd].pidfd else _forget(jobs, poller, fd)
            if listener.fileno() in events:  # last: a new client may get the number of a closed descriptor
                _accept(jobs, poller, listener, owner_fd)
    finally:
        for job in set(jobs.values()):
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)


def _accept(jobs: dict[int, Job], poller: select.poll, listener: socket.socket, owner_fd: int) -> None:
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        return
    client.setblocking(True)
    gone = select.poll()
    gone.register(client, select.POLLRDHUP)
    if gone.poll(0):  # it was interrupted in the queue
        client.close()
        return
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError:  # too many processes or too little memory: the client, left alone, runs plainly
        traceback.print_exc()
        client.close()
        return
    if pid == 0:
        try:
            # Other clients must see their connection close when the server dies, whatever this job does.
            for job in jobs.values():
                job.client.detach()
            for fd in (owner_fd, listener.detach(), *jobs):
                os.close(fd)
            become_job(client, server)
        finally:
            traceback.print_exc()
            os._exit(1)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)  # as the job does itself: neither waits for the other
    job = Job(pid, os.pidfd_open(pid), client)
    jobs[job.pidfd] = jobs[client.fileno()] = job
    poller.register(job.pidfd, select.POLLIN)
    poller.register(client, select.POLLRDHUP)


def _tell_end(jobs: dict[int, Job], poller: select.poll, fd: int) -> None:
    """Tell the client how its job ended; the job stays unreaped until `_forget`."""
    job = jobs.pop(fd)
    poller.unregister(fd)
    end = os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    with suppress(OSError):
        job.client.sendall(b"ended %d\n" % code)


def _forget(jobs: dict[int, Job], poller: select.poll, fd: int) -> None:
    """Reap the job of a client that has ended, after killing it if the client was killed."""
    job = jobs.pop(fd)
    poller.unregister(fd)
    job.client.close()
    if jobs.pop(job.pidfd, None):
        poller.unregister(job.pidfd)
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    os.close(job.pidfd)  # not before: its number would be given to another job
    os.waitpid(job.pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
