"""The tables of docs/hyperparameters.md: each setting, what was published, when to change it.

Meaning and default come from the code, the rest from docs/hyperparameters.toml. A setting without
an entry there, and an entry without a setting, are errors, so the page cannot go stale.
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent.parent / "docs" / "hyperparameters.toml"


@dataclass(frozen=True)
class Advice:
    """What is known of a setting beside its meaning.

    Attributes:
        when: when to change it.
        paper, code: the values published; "" where the setting has no counterpart there.
    """

    when: str
    paper: str = ""
    code: str = ""


def advice(settings: set[str], file: Path = FILE) -> Mapping[str, Advice]:
    """Setting → what the file says of it.

    Args:
        settings: every setting there is.
        file: of the advice.
    """
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if missing := sorted(settings - tables.keys()):
        sys.exit(f"{file.name} says nothing of {', '.join(missing)}: add when to change it")
    if left := sorted(tables.keys() - settings):
        sys.exit(f"{file.name} tells of {', '.join(left)}, which is no setting: remove it")
    return {key: Advice(**table) for key, table in tables.items()}
