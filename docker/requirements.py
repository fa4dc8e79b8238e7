"""Prints what the project and some of its extras depend on: requirements.py EXTRA….

An image installs the dependencies by this list, in a layer that the code is no part of.
"""

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path


def requirements(pyproject: Path, extras: Iterable[str]) -> list[str]:
    """The dependencies of the project in `pyproject` with these extras, sorted.

    Raises:
        KeyError: there is no such extra.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    itself = f"{project['name']}["
    found: set[str] = set(project["dependencies"])
    waiting, seen = list(extras), set[str]()
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for need in project["optional-dependencies"][extra]:
            if need.startswith(itself):
                named = need.removeprefix(itself).rstrip("]").split(",")
                waiting += [name for name in named if name not in seen]
            else:
                found.add(need)
    return sorted(found)


if __name__ == "__main__":
    print(*requirements(Path(__file__).parent / "pyproject.toml", sys.argv[1:]), sep="\n")
