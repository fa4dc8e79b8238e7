"""From a name on the command line to a scorer: the only dynamic import."""

import difflib
import importlib
import sys
from pathlib import Path

from reward_services.scorer import Scorer, ScorerContractError, describe

SHORT_NAMES = {
    "jpeg_compressibility": "reward_services.scorers.jpeg:jpeg_compressibility",
    "jpeg_incompressibility": "reward_services.scorers.jpeg:jpeg_incompressibility",
}


class ScorerLoadError(Exception):
    """A scorer could not be loaded; the message says what to change."""


def load_scorer(name: str) -> Scorer:
    """Build the scorer called `name`: a short name, or `module:Class` from any importable module.

    What stands behind the colon is called without arguments. Modules in the working directory
    are found too, behind everything that is installed.

    Raises:
        ScorerLoadError: unknown name, failing import, or something that is no scorer.
    """
    module_name, attribute = _target(name)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ScorerLoadError(f"{name}: there is no module {module_name!r}") from None
        raise ScorerLoadError(
            f"{name}: {module_name} needs the package {error.name!r}, which is not installed"
        ) from error
    except Exception as error:
        raise ScorerLoadError(f"{name}: importing {module_name} failed: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ScorerLoadError(f"{name}: {module_name} has no class {attribute!r}")
    try:
        scorer = factory()
        describe(scorer)
    except ScorerContractError as error:
        raise ScorerLoadError(str(error)) from None
    except Exception as error:
        raise ScorerLoadError(f"{name}: {attribute}() failed: {error}") from error
    return scorer  # type: ignore[no-any-return]


def _target(name: str) -> tuple[str, str]:
    target = SHORT_NAMES.get(name, name)
    module_name, colon, attribute = target.partition(":")
    if colon and module_name and attribute:
        return module_name, attribute
    close = difflib.get_close_matches(name, SHORT_NAMES, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ScorerLoadError(
        f"there is no reward {name!r}{hint}: use {', '.join(SHORT_NAMES)}, or module:Class"
    )
