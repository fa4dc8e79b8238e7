"""A whole service as processes of its own, API and workers, to be killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 60.0


class Part:
    """One process of a service. Started again after a kill, it keeps its log and its port."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.arguments = arguments
        self.folder = log.parent
        self.environment = environment
        self._log = log
        self._begin = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All it has said, through all its starts."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.events("listening")[-1]["url"])

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def start(self) -> None:
        """Start without waiting."""
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reward_services", *self.arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
            )

    def has_said(self, event: str) -> bool:
        """Whether it has logged this event since its last start."""
        return f'"{event}"' in self._log.read_text()[self._begin :]

    def wait_for(self, event: str) -> None:
        """Wait until it has logged this event since its last start."""
        give_up = time.monotonic() + START_S
        while not self.has_said(event):
            assert self.alive, self.log
            assert time.monotonic() < give_up, self.log
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; gives its exit code."""
        return self._end(signal.SIGTERM)

    def begin_stop(self) -> None:
        """Tell it to end, as an operator would, and do not wait."""
        assert self._process is not None
        self._process.terminate()

    def wait(self) -> int:
        """Wait until it has ended; gives its exit code."""
        assert self._process is not None
        return self._process.wait(START_S)

    def _end(self, sign: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(sign)
        return self._process.wait()


class Deployment:
    """One API and some workers of a reward on a broker that is there already.

    Args:
        folder: for the logs; a module of one's own that `reward` names is found here.
        reward: as on the command line of a worker.
        name: the name of the reward.
        workers: how many.
        settings: as REWARD_* variables, `broker_url` among them.
    """

    def __init__(
        self, folder: Path, reward: str, name: str, workers: int = 2, **settings: object
    ) -> None:
        own = {f"REWARD_{key.upper()}": str(value) for key, value in settings.items()}
        self.name = name
        self.environment = {**os.environ, **own}
        self.api = Part(["api", name, "--port", "0"], folder / "api.log", self.environment)
        self.workers = [
            Part(["worker", reward], folder / f"worker-{number}.log", self.environment)
            for number in range(workers)
        ]

    def __enter__(self) -> Self:
        for part in self.parts:
            part.start()
        for part in self.parts:
            part.wait_for("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self.parts:
            part.kill()

    @property
    def parts(self) -> Iterable[Part]:
        """All processes."""
        return (self.api, *self.workers)

    @property
    def url(self) -> str:
        """Where the API listens."""
        return self.api.url
