"""A real redis-server, and what the tests share."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis


def free_port() -> int:
    """A free port below those that Linux gives to outgoing connections."""
    while True:
        port = random.randrange(10_240, 22_240)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Server:
    """A redis-server that is a child process."""

    def __init__(self, *args: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.directory = tempfile.mkdtemp(prefix="event-ingestor-")
        self._args = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory, *args]
        run = os.environ.get("TEST_RUN")
        if run is not None:
            # The test run finds its processes by this.
            self._args += ["--proc-title-template", f"{{title}} {{listen-addr}} TEST_RUN={run}"]
        self.client: Any = redis.Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(["redis-server", *self._args], stdout=subprocess.DEVNULL)
        while True:
            try:
                self.client.ping()
                return
            except redis.exceptions.ConnectionError:
                assert self._process.poll() is None, "redis-server has ended"
                time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """An empty one. All tests of a process use it one after the other."""
    shared_server.client.flushall()
    return shared_server


@pytest.fixture
def own_server() -> Iterator[Server]:
    """One that a test may configure and end."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()
