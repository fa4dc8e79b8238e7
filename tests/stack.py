"""The services of docker-compose.yml as a project of their own, to be killed and looked into.

Everything goes through `docker` and `docker compose`, as an operator would do it. Ports, images and
volumes are apart from those of a stack that may run here already.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import free_port

ROOT = Path(__file__).parent.parent
PROJECT = "ddpo-compose-test"
REWARDS = {
    "jpeg": "jpeg_compressibility",
    "incompressibility": "jpeg_incompressibility",
    "aesthetic": "aesthetic",
    "alignment": "llava_bertscore",
}
"""Beginning of the names of its two services \u2192 the reward."""
OBSERVABILITY = ("--profile", "observability")
WAIT_S = 600.0


class StackError(Exception):
    """A command failed, or what was waited for did not come."""


class Stack:
    """One Compose project.

    Args:
        keys: file with the API keys.
        files: Compose files beyond the first.
        settings: variables of docker-compose.yml.
    """

    def __init__(self, keys: Path, *files: Path, **settings: str) -> None:
        self.ports = {name: free_port() for name in [*REWARDS, "prometheus"]}
        self._keys = keys
        self._files = [ROOT / "docker-compose.yml", *files]
        self._environment = {
            **os.environ,
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            "API_KEYS_FILE": str(keys),
            "ALLOW_NO_KEYS": "false",
            **settings,
        }

    @property
    def key(self) -> str:
        """An API key that the services take."""
        return self._keys.read_text().split()[0]

    def url(self, name: str) -> str:
        """Where a service is reached from this machine."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def compose(self, *arguments: str, **environment: str) -> str:
        """What `docker compose` prints.

        Raises:
            StackError: it failed.
        """
        files = [part for file in self._files for part in ("-f", str(file))]
        command = ["docker", "compose", "-p", PROJECT, *files, *arguments]
        return run(command, {**self._environment, **environment})

    def up(self, *services: str, **environment: str) -> None:
        """Build and start services, and wait until they are healthy."""
        self.compose(*OBSERVABILITY, "up", "-d", "--build", "--wait", *services, **environment)

    def down(self) -> None:
        """Take everything away, volumes and images included."""
        options = ("-v", "--rmi", "local", "--remove-orphans", "--timeout", "20")
        self.compose(*OBSERVABILITY, "down", *options)

    def services(self) -> list[str]:
        """All services that `docker compose up` starts."""
        return sorted(self.compose("config", "--services").split())

    def containers(self, service: str) -> list[str]:
        """The ids of the containers of a service, those that have ended included."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def container(self, service: str) -> str:
        """The id of the only container of a service."""
        (container,) = self.containers(service)
        return container

    def status(self, service: str) -> str:
        """`healthy` and the like where there is a health check, else `running`, `exited` \u2026."""
        state = inspect(self.container(service))["State"]
        if state["Status"] == "running" and "Health" in state:
            return str(state["Health"]["Status"])
        return str(state["Status"])

    def kill(self, service: str) -> None:
        """Kill a container as a crash would, and start it again as a supervisor would."""
        container = self.container(service)
        run(["docker", "kill", "--signal", "KILL", container])
        run(["docker", "start", container])

    def wait_for(self, service: str, *statuses: str) -> str:
        """Wait until a service has one of these statuses."""
        give_up = time.monotonic() + WAIT_S
        while (status := self.status(service)) not in statuses:
            if time.monotonic() > give_up:
                raise StackError(f"{service} is {status} and not {' or '.join(statuses)}")
            time.sleep(1)
        return status

    def sums(self, name: str) -> Mapping[str, str]:
        """SHA-256 of the trained weights and of every evaluation of a run, by file."""
        script = (
            f"cd /runs/{name} && find unet evaluation -type f -exec sha256sum {{}} + | sort -k2"
        )
        told = self.compose(
            *("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "trainer", "-c", script)
        )
        return {file: sha for sha, file in (line.split() for line in told.splitlines())}


def progress(trainer: str) -> int:
    """How many epochs and evaluations a trainer's container has told of, repetitions included."""
    log = run(["docker", "logs", trainer])
    return len(re.findall(r"(?m)^epoch \d+/|after epoch \d+: jpeg_compressibility", log))


def inspect(container: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    (known,) = json.loads(run(["docker", "inspect", container]))
    assert isinstance(known, dict)
    return known


def run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        StackError: it failed; with what it printed.
    """
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-3000:]
        raise StackError(f"{' '.join(command[:12])} \u2026 ended with {done.returncode}: {said}")
    return done.stdout
