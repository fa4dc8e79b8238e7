"""What a check before a run found."""

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        level: `problem` keeps a run from working; `warning` makes it slower or riskier.
        check: what was looked at.
        message: what was seen; of a problem, what to change too.
    """

    level: Level
    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.level:7}  {self.check}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    """A check that passed."""
    return Finding("ok", check, message)


def warning(check: str, message: str) -> Finding:
    """A check that passed with a reservation."""
    return Finding("warning", check, message)


def problem(check: str, message: str) -> Finding:
    """A check that failed."""
    return Finding("problem", check, message)
