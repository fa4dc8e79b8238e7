"""Why a run stops: each is one sentence for the person at the terminal, never a traceback.

    RunStopped            the command cannot go on; says what to change            exit 1
    ├── ConfigError       a setting is unknown, malformed or does not fit          exit 1
    ├── ModelError        the model cannot be loaded or trained by this method     exit 1
    ├── Unusable          training led to where there is nothing to learn from     exit 3
    ├── Outage            a reward service stayed away longer than `max_outage_s`  exit 75
    ├── ProcessLost       another process of the run has ended                     exit 75
    ├── StoppedElsewhere  another process of the run has been stopped              exit 1
    └── Interrupted       Ctrl-C or SIGTERM                                        exit 128 + signal

After an `Outage` or an `Interrupted` a checkpoint has been written and `--resume` continues.

Where a run has several processes, what stops one of them travels to the others as JSON.
"""

import os
from typing import Any


class RunStopped(Exception):
    """The run cannot go on. The message is one sentence that says what to change."""

    exit_code: int = 1


class ConfigError(RunStopped):
    """A setting is unknown, malformed or does not fit the others."""


class ModelError(RunStopped):
    """The model cannot be loaded, or it cannot be trained by this method."""


class Unusable(RunStopped):
    """Training led to where there is nothing to learn from: pictures without scores, or gradients
    that are not finite. The same run would end there again."""

    exit_code = 3


class Outage(RunStopped):
    """A reward service could not be used for longer than the run is willing to wait."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class ProcessLost(RunStopped):
    """Another process of the run has ended without a word, so nothing can be agreed on any more."""

    exit_code = 75


class StoppedElsewhere(RunStopped):
    """Another process of the run has been stopped, and this one leaves its work to hear why."""


class Interrupted(RunStopped):
    """A signal asked the run to end.

    Args:
        message: what was done about it and how to continue.
        signal_number: the signal, for the exit status 128 + signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def described(error: Exception | None, rank: int) -> dict[str, Any] | None:
    """What another process needs to stop for the same reason, as a JSON value.

    Args:
        error: what was met; None gives None.
        rank: of the process that met it.
    """
    if error is None:
        return None
    message = str(error)
    if not isinstance(error, RunStopped | OSError):
        message = f"process {rank} failed: {type(error).__name__}: {message}"
    code = error.exit_code if isinstance(error, RunStopped) else RunStopped.exit_code
    return {"kind": type(error).__name__, "message": message, "exit_code": code, "rank": rank}


def rebuilt(description: dict[str, Any]) -> RunStopped:
    """The error of `described`; one that is no `RunStopped` comes back as such."""
    kind, message = description["kind"], description["message"]
    if kind == Interrupted.__name__:
        return Interrupted(message, description["exit_code"] - 128)
    kinds: dict[str, type[RunStopped]] = {
        each.__name__: each for each in RunStopped.__subclasses__()
    }
    return kinds.get(kind, RunStopped)(message)


def told_here(stop: RunStopped) -> bool:
    """Whether this process is to tell it: of several on a machine that stop alike, one does."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return first or isinstance(stop, ProcessLost)
