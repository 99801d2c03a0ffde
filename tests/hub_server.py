"""A hub on loopback: what `huggingface_hub` asks of one to read models, with faults that can be switched on.

Two addresses are served, as by the real hub: one lists repositories and redirects to large files, the other (another
origin, which must never see a token) stores these under their SHA-256. Every request is written down.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TURN = 1 << 17
"""Bytes that are sent at a time where the rate is limited."""


class Content:
    """The bytes of a file, in parts that several files may share."""

    def __init__(self, *parts: bytes, large: bool = True, sha256: str | None = None) -> None:
        self.parts, self.large, self.size = parts, large, sum(map(len, parts))
        self.sha256 = sha256 or hashlib.sha256(b"".join(parts)).hexdigest()
        header = b"blob %d\0" % self.size
        self.oid = self.sha256[:40] if large else hashlib.sha1(header + b"".join(parts)).hexdigest()

    def slices(self, start: int, stop: int) -> Iterator[memoryview]:
        for part in self.parts:
            yield memoryview(part)[max(start, 0) : max(stop, 0)]
            start, stop = start - len(part), stop - len(part)


@dataclass
class Repo:
    branches: dict[str, str] = field(default_factory=dict)
    """Commit of each branch."""
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    """Files of each commit."""
    token: str | None = None
    """Who may read; everybody if None."""
    gated: bool = False
    """Whether files, but not listings, are refused."""

    def push(self, branch: str, files: Mapping[str, Content | bytes]) -> str:
        """Let a branch hold these files; give the commit."""
        stored = {path: c if isinstance(c, Content) else Content(c, large=False) for path, c in files.items()}
        names = json.dumps([branch, sorted((path, content.sha256) for path, content in stored.items())])
        commit = hashlib.sha1(names.encode()).hexdigest()
        self.branches[branch], self.commits[commit] = commit, stored
        return commit


@dataclass
class Fault:
    """What goes wrong, with the next `times` requests whose path contains `where`.

    cut: the connection is closed after `at` bytes. reset: as cut, but by a TCP reset. stall: it stays open and silent.
    wrong: a byte in the middle is another. no ranges: a range is ignored. A number: this HTTP status.
    huge: the listing states a size of `at`.
    """

    kind: str | int
    where: str
    times: int = 1
    at: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    status: int = 0
    sent: int = 0
    began: float = field(default_factory=time.monotonic)


@dataclass
class Line:
    """How fast it answers: bytes per second in total and per connection, seconds per request and new connection."""

    rate: float | None = None
    each: float | None = None
    latency: float = 0.0


class Pace:
    """Gives everybody who sends through it a turn, so that together they send `rate` bytes per second."""

    def __init__(self, rate: float | None) -> None:
        self.rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def turn(self, size: int) -> float:
        """Take the next turn; when it begins."""
        if not self.rate:
            return 0.0
        with self._lock:
            began = max(self._free, time.monotonic())
            self._free = began + size / self.rate
        return began


class Hub:
    """Repositories, faults and the list of requests."""

    def __init__(self) -> None:
        self.line = Line()
        self.pace = Pace(None)
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.url = self.store = ""
        self.done = threading.Event()
        self._lock = threading.Lock()

    def repo(self, name: str, **settings: object) -> Repo:
        return self.repos.setdefault(name, Repo(**settings))

    def fault(self, kind: str | int, where: str, **settings: object) -> None:
        self.faults.append(Fault(kind, where, **settings))

    def limit(self, line: Line) -> None:
        """Be slower for connections that are made from now on."""
        self.line, self.pace = line, Pace(line.rate)

    def take(self, path: str, *kinds: object) -> Fault | None:
        """Use up one fault for a path."""
        with self._lock:
            for fault in self.faults:
                fits = fault.kind in kinds or (int in kinds and isinstance(fault.kind, int))
                if fault.times and fits and fault.where in path:
                    fault.times -= 1
                    return fault
        return None

    def asked(self, where: str, method: str = "GET") -> list[Request]:
        return [request for request in self.requests if where in request.path and request.method == method]

    @contextmanager
    def serve(self) -> Iterator["Hub"]:
        """Serve on two free ports of loopback until the block ends."""
        handlers = (type("Front", (_Front,), {"hub": self}), type("Store", (_Store,), {"hub": self}))
        servers = [_Server(("127.0.0.1", 0), handler) for handler in handlers]
        self.url, self.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.done.set()
            for server in servers:
                server.shutdown()
                server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.pace = Pace(self.hub.line.each)
        time.sleep(self.hub.line.latency)  # what the handshake takes

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        self._begin()

    def _begin(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        path = unquote(urlsplit(self.path).path)
        self.request_log = Request(self.command, path, self.headers.get("Range"), token)
        self.hub.requests.append(self.request_log)
        time.sleep(self.hub.line.latency)
        if fault := self.hub.take(path, int):
            self.answer(fault.kind, b"later", fault.headers)
        else:
            self.route(path, token)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.request_log.sent += len(body)

    def refuse(self, status: int, code: str | None, message: str) -> None:
        self.answer(status, message.encode(), {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))

    def send(self, content: Content, path: str, headers: Mapping[str, str]) -> None:
        """Send a file or the range that was asked for, with the fault that is due."""
        start, match = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.hub.take(path, "no ranges"):
            match = None
        if match:
            start = int(match[1])
        size = sum(map(len, content.parts))
        if start >= size > 0:
            return self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
        fault = self.hub.take(path, "cut", "reset", "stall", "wrong") if self.command == "GET" else None
        self.request_log.status = 206 if match else 200
        self.send_response(self.request_log.status)
        ranges = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if match else {}
        stated = {"Content-Length": str(size - start), "Accept-Ranges": "bytes", **ranges, **headers}
        for name, value in stated.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        for piece in self._pieces(content, start, fault):
            self._send_in_turn(memoryview(piece))
            self.request_log.sent += len(piece)
        if fault and fault.kind != "wrong":
            self._break(fault)
        return None

    def _send_in_turn(self, piece: memoryview) -> None:
        if not (self.pace.rate or self.hub.pace.rate):
            self.wfile.write(piece)
            return
        for start in range(0, len(piece), TURN):
            part = piece[start : start + TURN]
            begins = max(self.pace.turn(len(part)), self.hub.pace.turn(len(part)))
            time.sleep(max(0.0, begins - time.monotonic()))
            self.wfile.write(part)

    def _pieces(self, content: Content, start: int, fault: Fault | None) -> Iterator[memoryview | bytes]:
        if fault is None:
            yield from content.slices(start, content.size)
        elif fault.kind == "wrong":
            whole = bytearray(b"".join(content.slices(0, content.size)))
            whole[len(whole) // 2] ^= 1
            yield bytes(whole[start:])
        else:
            yield from content.slices(start, min(fault.at, content.size))

    def _break(self, fault: Fault) -> None:
        self.wfile.flush()
        self.close_connection = True
        if fault.kind == "stall":
            self.hub.done.wait(60)
        elif fault.kind == "reset":
            time.sleep(0.3)  # what was sent shall arrive first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Requests are kept in `Hub.requests`."""


class _Front(_Handler):
    """Listings, small files, and redirects to large ones."""

    def route(self, path: str, token: str | None) -> None:
        if path == "/api/agent-harnesses":  # the client asks once a day, for what it says of itself
            return self.json({"standardEnvVars": [], "harnesses": {}})
        listing = r"/api/models/([^/]+/[^/]+)(?:/(refs|tree|revision)(?:/(.+))?)?"
        match = re.fullmatch(listing, path) or re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/(.+)", path)
        if match and match[1] in self.hub.renamed:
            return self.answer(307, b"", {"Location": self.path.replace(match[1], self.hub.renamed[match[1]])})
        repo = self.hub.repos.get(match[1]) if match else None
        if repo is None or (repo.token and token != repo.token):
            if token is None:
                self.refuse(401, None, "Invalid username or password.")
            elif not token.startswith("hf_"):
                self.refuse(401, None, "Invalid credentials in Authorization header")
            else:
                self.refuse(404, "RepoNotFound", "Repository not found")
        elif match[2] == "refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.branches.items()]
            self.json({"branches": refs, "tags": [], "converts": []})
        else:
            self.revision(repo, match[1], match[2], match[3] or "main", path)
        return None

    def revision(self, repo: Repo, name: str, verb: str | None, rest: str, path: str) -> None:
        revision, _, file = rest.partition("/")
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif verb == "tree":
            self.json([self.entry(path, item) for item in repo.commits[commit].items()])
        elif verb != "resolve":
            siblings = [{"rfilename": item} for item in repo.commits[commit]]
            self.json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": bool(repo.token)})
        elif repo.gated:
            self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        elif file not in repo.commits[commit]:
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            self.file(repo.commits[commit][file], commit, path)

    def entry(self, path: str, item: tuple[str, Content]) -> dict:
        name, content = item
        fault = self.hub.take(path, "huge")
        size = fault.at if fault else content.size
        entry = {"type": "file", "path": name, "size": size, "oid": content.oid}
        return entry | ({"lfs": {"oid": content.sha256, "size": size, "pointerSize": 134}} if content.large else {})

    def file(self, content: Content, commit: str, path: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{content.oid}"'}
        if content.large:
            headers |= {"X-Linked-Etag": f'"{content.sha256}"', "X-Linked-Size": str(content.size)}
            # The path goes along, so that faults can name it.
            self.answer(302, b"", headers | {"Location": f"{self.hub.store}/{content.sha256}{path}"})
        else:
            self.send(content, path, headers)

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


class _Store(_Handler):
    """Large files by their hash."""

    def route(self, path: str, token: str | None) -> None:
        digest = path.split("/")[1]
        for repo in self.hub.repos.values():
            for files in repo.commits.values():
                for content in files.values():
                    if content.sha256 == digest:
                        return self.send(content, path, {"ETag": f'"{digest}"'})
        return self.answer(404)
