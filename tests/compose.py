"""The full stack for real: built, started, asked, trained on, shot at, looked into, taken down.

    python -m tests.compose

Prints a line for everything that was shown. Exit code 0 when all of it holds, 1 when something does
not, and 77 when there is no Docker engine, so that nothing was shown. The project has a name,
ports, volumes and images of its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import compose_checks as checks
from tests.stack import PROJECT, Stack, StackError

NOT_RUN = 77
LEASE_S = "5"
SLOW = Path(__file__).parent / "compose.slow.yml"


def main() -> int:
    """Do all of it."""
    if reason := missing():
        print(f"compose-test: NOT RUN: {reason}", file=sys.stderr)
        return NOT_RUN
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        keys = checks.keys_file(Path(folder))
        stack = Stack(keys, LEASE_S=LEASE_S)
        try:
            stack.down()
            shown(stack)
            Stack(keys, LEASE_S=LEASE_S).down()
            slow(Stack(keys, SLOW, LEASE_S=LEASE_S))
        except StackError as error:
            print(f"compose-test: FAILED: {error}", file=sys.stderr)
            return 1
        finally:
            stack.down()
    tell("compose-test: passed")
    return 0


def missing() -> str | None:
    """Why the stack cannot be started here, if so."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "there is no docker command"
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}"
    return None


def shown(stack: Stack) -> None:
    """Everything about the stack with its real scorers."""
    began = time.time()
    stack.compose("build")
    tell(f"build: {time.time() - began:.0f} s")
    services = [name for name in stack.services() if name != "trainer"]
    stack.up(*services)
    tell(checks.check_health(stack, services))
    tell(checks.check_images(stack))
    tell(checks.check_scores(stack))
    observed = start_prometheus(stack)
    since = time.time()
    calm = checks.train_undisturbed(stack, "calm")
    tell(f"training: undisturbed in {time.time() - since:.0f} s")
    since = time.time()
    for number, line in enumerate(checks.train_under_fire(stack, "fire")):
        tell(f"  {time.time() - since:4.0f} s  {line}")
        if observed and number == 0:
            tell(checks.check_targets(stack))
    tell(f"training: under fire in {time.time() - since:.0f} s, the trainer ended with 0")
    tell(checks.check_same(calm, stack.sums("fire")))
    if observed:
        tell(checks.check_dashboards(stack, began))


def start_prometheus(stack: Stack) -> bool:
    """Start Prometheus where its image can be had; whether it runs."""
    try:
        stack.up("prometheus")
    except StackError as error:
        tell(f"prometheus: NOT CHECKED: {str(error).splitlines()[-1]}")
        return False
    return True


def slow(stack: Stack) -> None:
    """What more workers bring, on a scorer that takes its time."""
    tell(checks.check_scaling(stack))


def tell(line: str) -> None:
    """Print at once: it takes minutes in all."""
    print(line, flush=True)


if __name__ == "__main__":
    assert PROJECT != "ddpo", "the stack of a person on this machine is left alone"
    sys.exit(main())
