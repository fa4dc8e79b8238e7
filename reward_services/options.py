"""Options of a reward: one declared class per reward, filled from text, unknown names refused."""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class SetupError(Exception):
    """A reward cannot be set up as it was asked to; the message says what to change."""


class RewardOptions(BaseModel):
    """Base of the options of a reward: declare one field per option, with a docstring under it.

    The reward takes them as its one argument: `def __init__(self, options: MyOptions)`. Values
    come as text, from `--set name=value` or `REWARD_OPTIONS__NAME`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def options_class(factory: Callable[..., Any]) -> type[RewardOptions] | None:
    """What the argument `options` of a reward is annotated with; None when it takes none.

    Raises:
        SetupError: an argument that is no subclass of `RewardOptions`.
    """
    if "options" not in inspect.signature(factory).parameters:
        return None
    function = factory.__init__ if inspect.isclass(factory) else factory
    found = typing.get_type_hints(function).get("options")
    if inspect.isclass(found) and issubclass(found, RewardOptions):
        return found
    name = RewardOptions.__name__
    raise SetupError(f"its argument `options` must be annotated with a subclass of {name}")


def build_options(kind: type[RewardOptions], given: Mapping[str, str]) -> RewardOptions:
    """Options from text.

    Raises:
        SetupError: an option that does not exist, is missing, or has a value that cannot be used.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        meaning = kind.model_fields[name].description or ""
        raise SetupError(f"it needs the option {name} (--set {name}=…): {meaning}".strip(" :"))
    if first["type"] == "extra_forbidden":
        raise SetupError(no_such_option(name, kind))
    # A secret must not be repeated in a log.
    value = "" if "key" in name else f", not {first['input']!r}"
    where = f"--set {name}: " if name else ""
    raise SetupError(f"{where}{first['msg'].removeprefix('Value error, ')}{value}")


def no_such_option(name: str, kind: type[RewardOptions] | None) -> str:
    """One line about an option that a reward does not have."""
    known = sorted(kind.model_fields) if kind else []
    if not known:
        return f"there is no option {name!r}: this reward takes none"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no option {name!r}{hint}: use {', '.join(known)}"
