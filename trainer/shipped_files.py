"""Files named in a recipe: in the working directory, or shipped beside the packages."""

from pathlib import Path

import trainer

PACKAGES = Path(trainer.__file__).parent.parent
"""The folder that holds the installed packages."""


def find(path: str) -> Path | None:
    """The file or folder that `path` names; None when there is none.

    A relative path is looked for in the working directory, then beside the installed packages.
    """
    candidates = (Path(path).expanduser(), PACKAGES / path)
    return next((candidate for candidate in candidates if candidate.exists()), None)
