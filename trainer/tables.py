"""Nested tables of settings: laid over one another, flattened, read from and written as TOML."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from trainer.stops import ConfigError


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=value` → {"a": {"b": value}}.

    Scalars stay text, which the field's type converts; lists, tables and quoted strings are TOML.

    Raises:
        ConfigError: the text has another form.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    path = key.split(".")
    if not equals or len(path) < 2 or not all(path):
        raise ConfigError(f"--set {text!r} is not of the form section.key=value")
    parsed: Any = value
    if value[:1] in ("[", "{", '"'):
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"--set {text!r}: {error}") from None
    for name in reversed(path):
        parsed = {name: parsed}
    return dict(parsed)


def merge(base: dict[str, Any], stronger: Mapping[str, Any]) -> None:
    """Lay one nested table over another, in place."""
    for key, value in stronger.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; an empty table stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_toml(table: Mapping[str, Any]) -> str:
    """A nested table of JSON values as TOML; None is left out, since TOML has no null."""
    return _toml_table(table, "").lstrip("\n")


def _toml_table(table: Mapping[str, Any], name: str) -> str:
    lines = [f"\n[{name}]"] if name else []
    nested = ""
    for key, value in table.items():
        toml_key = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)
        if isinstance(value, Mapping):
            nested += _toml_table(value, f"{name}.{toml_key}" if name else toml_key)
        elif value is not None:
            lines.append(f"{toml_key} = {_toml_value(value)}")
    return "\n".join(lines) + ("\n" if lines else "") + nested


def _toml_value(value: Any) -> str:
    """A JSON scalar or list: written alike in TOML, but for surrogate escapes and a bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
