"""What stops a run, as a tree. The command line prints the message alone, as one line.

TrainerError
├── ConfigError         a setting is unknown, malformed or does not fit the others
├── ModelError          the model cannot be loaded or cannot be trained by this method
└── TrainingError       the run went wrong: nothing left to learn from, or numbers that diverged
"""


class TrainerError(Exception):
    """Base of every error whose message is meant for the person who started the run."""


class ConfigError(TrainerError):
    """A setting is unknown, malformed or does not fit the others."""


class ModelError(TrainerError):
    """The model cannot be loaded, or it cannot be trained by this method."""


class TrainingError(TrainerError):
    """The run cannot go on: the numbers diverged or nothing is left to learn from."""
