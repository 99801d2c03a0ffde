"""The forked process: takes on what the client sent and runs the module as a fresh interpreter would."""

import atexit
import builtins
import ctypes
import gc
import importlib
import itertools
import marshal
import os
import runpy
import signal
import socket
import sys
import threading
from types import ModuleType
from typing import Any, NoReturn

from phasegraph.warm.client import FORWARDED

_PR_SET_PDEATHSIG = 1


def become_job(client: socket.socket, server: int) -> NoReturn:
    """Run the module that `client` asks for, and end this process.

    Parameters
    ----------
    client
        Connection on which the request comes and on which the job tells that it is ready.
    server
        Process id of the parent: the job dies with it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != server:  # it died before the line above
        os._exit(1)
    os.setpgid(0, 0)
    request = _receive(client)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    for number in FORWARDED:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    client.sendall(b"ready %d\n" % os.getpid())
    if not client.recv(1):  # it was interrupted before it could pass signals on
        os._exit(1)
    client.close()
    _look_fresh(request)
    _exit(_run(request["arguments"][0]))


def _receive(client: socket.socket) -> dict[str, Any]:
    """Receive the request and make the client's standard streams this process's."""
    length, streams, _, _ = socket.recv_fds(client, 8, 3)
    message = client.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    for fd, stream in enumerate(streams):
        os.dup2(stream, fd)
        os.close(stream)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or os.isatty(1))
    return marshal.loads(message)


def _look_fresh(request: dict[str, Any]) -> None:
    """Make this interpreter look as ``python -m`` would find it."""
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv[:] = request["command"]
    sys.argv[:] = ["-m", *request["arguments"][1:]]
    sys.path[:] = request["path"]
    importlib.invalidate_caches()
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})
    del sys.modules["__main__"]
    sys.modules["__main__"] = main  # last: what follows it is the job's
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # of another TMPDIR
    if "numpy.random" in sys.modules:  # fresh interpreters share no state of global generators
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _run(module: str) -> int:
    """Run a module as ``__main__`` and give the exit status, or minus SIGINT after a KeyboardInterrupt."""
    try:
        runpy._run_module_as_main(module)  # what python -m calls
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        trace = error.__traceback__
        while trace and trace.tb_frame.f_globals.get("__name__") == __name__:
            trace = trace.tb_next  # as python -m, begin at runpy
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _exit(status: int) -> NoReturn:
    """End as an interpreter does, but leave the server's modules alone: taking them apart costs 0.7 CPU seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for name in list(itertools.takewhile(lambda name: name != "__main__", reversed(sys.modules))):
        del sys.modules[name]
    vars(sys.modules["__main__"]).clear()  # files left open are now written, and temporary ones removed
    gc.collect()
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    for stream in {id(stream): stream for stream in streams}.values():
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError as error:  # the reader went away, the disk is full
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.__stderr__)
                status = 120
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
