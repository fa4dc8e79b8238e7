"""The tables of a configuration that name services, from sources that say only a part of them."""

from collections.abc import Mapping
from typing import Any

from trainer.stops import ConfigError

OPTIONS = {"rewards": "--reward", "monitors": "--monitor"}
"""The sections that name services, and the option of the command line that fills each."""


def long_form(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, with services that are written short (`NAME = URL`) as tables, in place.

    So a source may change one setting of a service and leave it the URLs of a weaker source.
    """
    for section in OPTIONS:
        services = values.get(section)
        if isinstance(services, dict):
            for name, value in services.items():
                if isinstance(value, str | list):
                    services[name] = {"urls": value}
    return values


def with_urls(
    section: str,
    given: Mapping[str, str],
    values: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """A section of services as the command line names them.

    Args:
        section: which one.
        given: name → URL of the command line.
        values: the tables of all sources; services that are not given are left out, the others
            keep what is known of them but the URLs.
        changes: what of it `--set` says.

    Raises:
        ConfigError: `--set` changes a service that is left out, and would be lost.
    """
    option = OPTIONS[section]
    for name in _table(changes, section):
        if name not in given:
            raise ConfigError(
                f"--set {section}.{name}…: {option} names {', '.join(given)} and no {name}; "
                f"correct the name, or add {option} {name}=URL"
            )
    known = _table(values, section)
    return {name: _table(known, name) | {"urls": urls} for name, urls in given.items()}


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a source says under a name; nothing where that is no table, which is told elsewhere."""
    found = tables.get(name)
    return found if isinstance(found, dict) else {}
