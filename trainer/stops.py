"""Why a run stops: each is one sentence for the person at the terminal, never a traceback.

    RunStopped            the command cannot go on; says what to change            exit 1
    ├── ConfigError       a setting is unknown, malformed or does not fit          exit 1
    ├── ModelError        the model cannot be loaded or trained by this method     exit 1
    ├── Unusable          training led to where there is nothing to learn from     exit 3
    ├── Outage            a reward service stayed away longer than `max_outage_s`  exit 75
    └── Interrupted       Ctrl-C or SIGTERM                                        exit 128 + signal

After an `Outage` or an `Interrupted` a checkpoint has been written and `--resume` continues.
"""


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


class Interrupted(RunStopped):
    """A signal asked the run to end.

    Args:
        message: what was done about it and how to continue.
        signal_number: the signal, for the exit status 128 + signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
