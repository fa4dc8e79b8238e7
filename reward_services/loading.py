"""From a name on the command line to a scorer: the only dynamic import."""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reward_services.options import SetupError, build_options, no_such_option, options_class
from reward_services.scorer import Scorer, ScorerContractError, describe

SHORT_NAMES = {
    "jpeg_compressibility": "reward_services.scorers.jpeg:jpeg_compressibility",
    "jpeg_incompressibility": "reward_services.scorers.jpeg:jpeg_incompressibility",
    "aesthetic": "reward_services.scorers.aesthetic:Aesthetic",
    "clip_score": "reward_services.scorers.clip_score:ClipScore",
    "pickscore": "reward_services.scorers.pickscore:PickScore",
    "llava_bertscore": "reward_services.scorers.llava_bertscore:LlavaBertScore",
    "llava_vqa": "reward_services.scorers.llava_vqa:LlavaVqa",
}

EXTRAS = {
    "aesthetic": "aesthetic",
    "clip_score": "aesthetic",
    "pickscore": "aesthetic",
    "llava_bertscore": "llava",
    "llava_vqa": "llava",
}
"""What has to be installed for a reward, where the base and the extra `service` are not enough."""


class ScorerLoadError(Exception):
    """A scorer could not be loaded; the message says what to change."""


def load_scorer(name: str, options: Mapping[str, str] | None = None) -> Scorer:
    """Build the scorer called `name`: a short name, or `module:Class` from any importable module.

    What stands behind the colon is called with its `options` if it takes any (see
    `RewardOptions`), else without arguments. Modules in the working directory are found too,
    behind everything that is installed.

    Raises:
        ScorerLoadError: unknown name, failing import, something that is no scorer, or options
            that it does not have or cannot use.
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
            + (f": pip install 'ddpo-reward-services[{EXTRAS[name]}]'" if name in EXTRAS else "")
        ) from error
    except Exception as error:
        raise ScorerLoadError(f"{name}: importing {module_name} failed: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ScorerLoadError(f"{name}: {module_name} has no class {attribute!r}")
    try:
        scorer = factory(**_arguments(factory, options or {}))
        describe(scorer)
    except ScorerContractError as error:
        raise ScorerLoadError(str(error)) from None
    except SetupError as error:
        raise ScorerLoadError(f"{name}: {error}") from None
    except Exception as error:
        raise ScorerLoadError(f"{name}: {attribute}() failed: {error}") from error
    return scorer  # type: ignore[no-any-return]


def _arguments(factory: Callable[..., Any], given: Mapping[str, str]) -> dict[str, Any]:
    kind = options_class(factory)
    if kind is not None:
        return {"options": build_options(kind, given)}
    if given:
        raise SetupError(no_such_option(next(iter(given)), None))
    return {}


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
