"""What a job starts: hands the module to the server and stands for it until it has ended.

Only light modules are imported here, since every job pays for them: marshal is built in, json costs as much CPU
time as the rest of this file. Nor is pathlib light.
"""
# ruff: noqa: PTH102, PTH109, PTH115, PTH123

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would cost a third of the client's CPU time
    from collections.abc import Callable
    from io import BufferedReader
    from typing import NoReturn

VARYING = frozenset({"TMPDIR", "TMP", "TEMP", "TEMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "CUDA_VISIBLE_DEVICES"})
"""Variables that may differ from the server's: no library keeps what it read of them at import."""

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> NoReturn:
    """Run the module that the command line names, in a fork of the server or else plainly."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: python -m phasegraph.warm MODULE [ARGUMENT ...]", file=sys.stderr)
        sys.exit(2)
    stream_closed = None in (sys.stdin, sys.stdout, sys.stderr)  # another file would take its number
    if stream_closed or os.environ.get("PHASEGRAPH_WARM") == "0" or (owner := snakemake_ancestor()) is None:
        run_plainly()
    try:
        connection = connect(owner)
        pid, ignored, answers = submit(connection)
    except (OSError, ValueError) as error:
        if snakemake_ancestor() != owner:
            sys.exit("phasegraph.warm: Snakemake has ended")
        print(f"phasegraph.warm: {error}: running without the server", file=sys.stderr)
        run_plainly()
    share_end(connection, answers, pid, ignored)


def run_plainly() -> NoReturn:
    """Become ``python -m MODULE ARGS...``."""
    os.execv(sys.executable, [*interpreter(), *sys.argv[1:]])


def interpreter() -> list[str]:
    """Give the command line of this interpreter with its options, up to and including ``-m``."""
    position = len(sys.orig_argv) - len(sys.argv)
    attached = sys.orig_argv[position].partition("phasegraph.warm")[0]  # "-m" where the user wrote -mphasegraph.warm
    return [sys.executable, *sys.orig_argv[1:position], *([attached] if attached else [])]


def snakemake_ancestor() -> int | None:
    """Give the process id of the nearest ancestor that is a Snakemake; None without one, and in a container."""
    pid = os.getppid()
    try:
        while pid:
            with open(f"/proc/{pid}/cmdline", "rb") as handle:
                words = handle.read().split(b"\0")[:3]  # the third one of python -m snakemake
            names = {word.removesuffix(b"/__main__.py").rpartition(b"/")[2] for word in words}
            if b"snakemake" in names:
                in_a_container = os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{pid}/ns/mnt")
                return None if in_a_container else pid
            pid = int(process_status(pid)[1])
    except OSError:  # no /proc, or an ancestor ended meanwhile
        pass
    return None


def process_status(pid: int) -> list[str]:
    """Give the fields of /proc/<pid>/stat that follow the name: state, parent, ... and the start time as number 19."""
    with open(f"/proc/{pid}/stat") as handle:
        return handle.read().rpartition(")")[2].split()


# ---------------------------------------------------------------------------------------------- reaching the server
def connect(owner: int) -> socket.socket:
    """Connect to the server of the Snakemake process `owner`, after starting it if there is none.

    Raises
    ------
    OSError
        If no server can be reached or started.
    ValueError
        If the server cannot stand for a fresh interpreter of this job.
    """
    import errno

    folder = server_folder(owner)
    mine = identity()
    connection = socket.socket(socket.AF_UNIX)
    try:
        at_socket(folder, connection.connect)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
            raise
        connection = start(folder, owner, mine)
    with open(f"{folder}/identity", "rb") as handle:
        theirs = marshal.load(handle)
    if mine != theirs:
        names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        raise ValueError(f"not as in the job that started the server: {', '.join(names)}")
    return connection


def server_folder(owner: int) -> str:
    """Give the folder of the server of `owner` for this job's threads, made if missing; nobody else may enter it.

    The start time tells a process from a later one with the same number, the host one on a shared TMPDIR. Numerical
    libraries read the number of threads, which Snakemake exports to each job, when they are loaded. Setting it in the
    fork is not the same (they limit what they read to the cores, and bits follow), so each number has a server.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    name = f"{folder_prefix()}{owner}-{process_status(owner)[19]}-{threads if threads.isdecimal() else 'any'}"
    folder = f"{os.environ.get('TMPDIR') or '/tmp'}/{name}"
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if status.st_uid != os.getuid() or status.st_mode & 0o170077 != 0o040000:  # somebody else laid it there, or a link
        raise PermissionError(f"{folder} is not a private folder of yours")
    return folder


def folder_prefix() -> str:
    """Give what the names of all folders of this user on this host begin with."""
    return f"phasegraph-warm-{os.getuid()}-{os.uname().nodename}-"


def at_socket(folder: str, act: Callable[[str], None]) -> None:
    """Call `act` (bind or connect) with a short name: a socket's may have 107 bytes, a TMPDIR is often longer."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        act(f"/proc/self/fd/{fd}/socket")
    finally:
        os.close(fd)


def identity() -> dict[str, object]:
    """Give what must be equal for a fork of the server to be like a fresh interpreter."""
    names = os.environ.keys() - VARYING
    # sys.path[0] is the working directory
    return {"the interpreter": interpreter(), "sys.path": sys.path[1:]} | {name: os.environ[name] for name in names}


def start(folder: str, owner: int, mine: dict[str, object]) -> socket.socket:
    """Start the server, or wait for the one that another job is starting, and connect to it."""
    import fcntl
    import subprocess

    with open(f"{folder}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            at_socket(folder, connection.connect)
            return connection
        with open(f"{folder}/identity", "wb") as handle:
            marshal.dump(mine, handle)
        preload = os.environ.get("PHASEGRAPH_WARM_PRELOAD")
        what = "torch and transformer_lens once, about 10 s" if preload is None else f"{preload} once"
        print(f"phasegraph.warm: starting the warm server (importing {what})", file=sys.stderr, flush=True)
        reading, writing = os.pipe()
        with open(f"{folder}/log", "ab") as log:
            subprocess.Popen(
                [*interpreter(), "phasegraph.warm.server", folder, str(owner), str(writing)],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is Snakemake's affair
            )
        os.close(writing)
        if not os.read(reading, 1):
            raise OSError(f"the warm server did not start (see {folder}/log)")
        os.close(reading)
        at_socket(folder, connection.connect)  # from now on calls queue, while the server is still importing
        return connection


# ------------------------------------------------------------------------------------------------ standing for the job
def submit(connection: socket.socket) -> tuple[int, list[int], BufferedReader]:
    """Send this call and wait until a job stands ready; it begins when a byte tells that its signals are cared for.

    Returns
    -------
    tuple
        The job's process id, the signals that it ignores, and the stream on which its end will be told.

    Raises
    ------
    OSError
        If the server went away before; then nothing has been done yet.
    """
    ignored = [int(number) for number in FORWARDED if signal.getsignal(number) is signal.SIG_IGN]
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "arguments": sys.argv[1:],
        "command": [*interpreter(), *sys.argv[1:]],
        "path": sys.path,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": umask,
        "ignored": ignored,
    }
    message = marshal.dumps(request)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the queue: end, without a traceback
    socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(message)
    answers = connection.makefile("rb")
    word, _, pid = answers.readline().partition(b" ")
    if word != b"ready":
        raise ConnectionError("the warm server went away")
    return int(pid), ignored, answers


def share_end(connection: socket.socket, answers: BufferedReader, pid: int, ignored: list[int]) -> NoReturn:
    """Let the job begin, pass signals on to it, wait for its end and end the same way."""

    def forward(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, number)  # not a stranger: the server reaps the job only after this process has ended

    for number in FORWARDED:
        if number not in ignored:
            signal.signal(number, forward)
    try:
        connection.send(b"!")
        word, _, code = answers.readline().partition(b" ")
    except OSError:
        word = b""
    if word != b"ended":
        print(f"phasegraph.warm: the warm server died, and {sys.argv[1]} with it", file=sys.stderr)
        sys.exit(1)
    if int(code) < 0:
        die_of(-int(code))
    os._exit(int(code))


def die_of(number: int) -> NoReturn:
    """Die of a signal."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the job has left the core that is of interest
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)
