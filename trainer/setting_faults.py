"""What is wrong with a setting, in words: one line that names it and the nearest right name."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError
from pydantic.fields import FieldInfo

Fields = Mapping[str, FieldInfo]


def described(error: ValidationError, fields: Fields) -> str:
    """Every fault of a configuration on one line, unknown keys with the nearest known one.

    Args:
        error: what validation found.
        fields: of the class that was validated.
    """
    faults = []
    for fault in error.errors(include_url=False):
        location = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _keys_beside(fault["loc"], fields)
            faults.append(f"unknown setting {location}{suggestion(str(fault['loc'][-1]), known)}")
        elif fault["type"] == "missing":
            key = f"{location}.path" if location == "model" else location
            faults.append(f"{key} is not set: name a recipe, or add --set {key}=…")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(fault["input"], dict) else f" (got {fault['input']!r})"
            where = f"{location}: " if location else ""  # a fault of several sections is of none
            faults.append(f"{where}{message[0].lower()}{message[1:]}{shown}")
    return "; ".join(faults)


def _keys_beside(location: tuple[int | str, ...], fields: Fields) -> Iterable[str]:
    """Names that would have been right where an unknown key stood."""
    for part in location[:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        fields = getattr(annotation, "model_fields", {})
    return fields.keys()


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to add to the complaint about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(names)})" if names else ""
