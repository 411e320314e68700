"""A hub on loopback, as far as huggingface_hub needs one: repositories in memory, downloads in parts, commits, faults.

Large files (safetensors, pth) are redirected to another address with their SHA-256, as the real hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from lorair_arch.errors import CheckpointError
from lorair_arch.weights import located
from tests.miniature import REPO

BIG = np.random.default_rng(0).bytes(100_000)
CONFIG = b'{"router": {}, "restorer": {}, "degradations": ["noise", "rain"]}'

_LARGE = ('.safetensors', '.pth')


class Hub(ThreadingHTTPServer):
    """Attributes:

    repos: Of each repository its commits, oldest first, each {path: content}; a commit's id follows from its content.
    requests: What was asked, 'METHOD path'.
    sent: Of each download of a large file: from which byte on, and how many were sent.
    limit: No byte of a large file from this one on is sent; there the connection is cut or, with `stall`, says nothing.
    damage: Large files are sent with a wrong first byte.
    refuse: Status and error code that every request gets in place of an answer.
    private: Repositories that only a bearer of the token 'hf_good' sees.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.url = f'http://127.0.0.1:{self.server_port}'
        self.elsewhere = f'http://localhost:{self.server_port}'  # another host, as far as a client can tell
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.requests: list[str] = []
        self.sent: list[tuple[int, int]] = []
        self.limit: int | None = None
        self.stall = self.damage = False
        self.refuse: tuple[int, str] | None = None
        self.private: set[str] = set()
        self.uploads: dict[str, bytes] = {}
        self.released = threading.Event()

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Makes a commit that holds these files; gives its id."""
        self.repos.setdefault(repo, []).append(files)
        return commit_id(files)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Is silent when a client hangs up."""


@contextmanager
def serving() -> Iterator[Hub]:
    """Runs a hub in a thread."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


def commit_id(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def etag(path: str, content: bytes) -> str:
    if path.endswith(_LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = unquote(urlsplit(self.path).path)
        if path == '/api/agent-harnesses':  # of the client's own accord, about who asks
            return self.answer(404)
        self.server.requests.append(f'{self.command} {path}')
        if self.server.refuse:
            status, code = self.server.refuse
            return self.answer(status, headers={'X-Error-Code': code} if code else {})
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return method(self, body=body, **found.groupdict())
        return self.answer(404)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: Any) -> None:
        """Is silent."""

    def answer(self, status: int = 200, content: bytes = b'', headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {'Content-Length': str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def json(self, content: Any) -> None:
        self.answer(content=json.dumps(content).encode(), headers={'Content-Type': 'application/json'})

    def commit(self, repo: str, revision: str | None) -> dict[str, bytes] | None:
        """Gives the files of a commit, or answers that there is none."""
        commits = self.server.repos.get(repo)
        hidden = repo in self.server.private and self.headers.get('Authorization') != 'Bearer hf_good'
        if commits is None or hidden:
            # The real hub does not tell what is private from what does not exist.
            self.answer(401, headers={'X-Error-Code': 'RepoNotFound'})
            return None
        if revision in (None, 'main'):
            return commits[-1] if commits else {}
        found = next((files for files in commits if commit_id(files) == revision), None)
        if found is None:
            self.answer(404, headers={'X-Error-Code': 'RevisionNotFound'})
        return found

    def info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        if (files := self.commit(repo, revision)) is not None:
            siblings = [{'rfilename': path} for path in files]
            self.json({'id': repo, 'modelId': repo, 'sha': commit_id(files), 'siblings': siblings, 'tags': []})

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        if (files := self.commit(repo, revision)) is None:
            return
        headers = {'X-Repo-Commit': commit_id(files)}
        if path not in files:
            self.answer(404, headers={'X-Error-Code': 'EntryNotFound', **headers})
            return
        content = files[path]
        headers['ETag'] = f'"{etag(path, content)}"'
        if not path.endswith(_LARGE):
            self.answer(content=content, headers=headers)
            return
        self.server.uploads[etag(path, content)] = content
        headers |= {'X-Linked-Size': str(len(content)), 'X-Linked-Etag': headers['ETag']}
        self.answer(302, headers={**headers, 'Location': f'{self.server.elsewhere}/large/{etag(path, content)}'})

    def large(self, body: bytes, sha: str) -> None:
        """Sends or, for PUT, takes a large file."""
        if self.command == 'PUT':
            self.server.uploads[sha] = body
            self.answer()
            return
        content = self.server.uploads[sha]
        if self.server.damage:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int((re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or '') or [0, 0])[1])
        end = len(content) if self.server.limit is None else max(start, self.server.limit)
        self.server.sent.append((start, len(content[start:end])))  # before a client can have got it, and gone
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content) - start))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if end < len(content):
            if self.server.stall:
                self.server.released.wait()
            self.close_connection = True

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f'{asked.get("organization") or "me"}/{asked["name"]}'
        if self.headers.get('Authorization') != 'Bearer hf_good':
            self.answer(401)
        elif repo in self.server.repos:
            self.answer(409, json.dumps({'url': f'{self.server.url}/{repo}'}).encode())
        else:
            self.server.repos[repo] = []
            self.server.private |= {repo} if asked.get('visibility') == 'private' or asked.get('private') else set()
            self.json({'url': f'{self.server.url}/{repo}', 'name': repo})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        paths = [file['path'] for file in json.loads(body)['files']]
        mode = {path: 'lfs' if path.endswith(_LARGE) else 'regular' for path in paths}
        self.json({'files': [{'path': p, 'uploadMode': mode[p], 'shouldIgnore': False} for p in paths]})

    def batch(self, body: bytes, repo: str) -> None:
        objects = json.loads(body)['objects']
        for each in objects:
            each['actions'] = {'upload': {'href': f'{self.server.url}/large/{each["oid"]}', 'header': {}}}
        self.json({'transfer': 'basic', 'objects': objects})

    def make_commit(self, body: bytes, repo: str, revision: str) -> None:
        commits = self.server.repos[repo]
        files = dict(commits[-1]) if commits else {}
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                files[value['path']] = self.server.uploads[value['oid']]
        commit = self.server.add(repo, files)
        self.json({'success': True, 'commitOid': commit, 'commitUrl': f'{self.server.url}/{repo}/commit/{commit}'})

    def validate(self, body: bytes) -> None:
        self.json({'errors': [], 'warnings': []})

    def who(self, body: bytes) -> None:
        self.json({'name': 'me', 'type': 'user', 'orgs': []})


_NAME = r'(?P<repo>[\w.-]+/[\w.-]+)'
_ROUTES = (
    (r'/api/repos/create', _Handler.create),
    (r'/api/validate-yaml', _Handler.validate),
    (r'/api/whoami-v2', _Handler.who),
    (rf'/api/models/{_NAME}/preupload/(?P<revision>.+)', _Handler.preupload),
    (rf'/api/models/{_NAME}/commit/(?P<revision>.+)', _Handler.make_commit),
    (rf'/api/models/{_NAME}(/revision/(?P<revision>.+))?', _Handler.info),
    (rf'/{_NAME}\.git/info/lfs/objects/batch', _Handler.batch),
    (rf'/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)', _Handler.resolve),
    (r'/large/(?P<sha>\w+)', _Handler.large),
)


def said(name: str) -> str:
    """Gives the one sentence with which weights by this name are refused."""
    with pytest.raises(CheckpointError) as error:
        located(name)
    assert '\n' not in str(error.value)
    return str(error.value)


def start(folder: Path, *command: str) -> subprocess.Popen:
    """Starts `lorair ...` in a folder."""
    code = 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair())'
    env = os.environ | {'PYTHONPATH': str(REPO)}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, '-c', code, *command], cwd=folder, env=env, **pipes)


def lorair(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Runs `lorair ...` in a folder."""
    process = start(folder, *command)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
