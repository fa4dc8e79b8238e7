"""Numbers of bytes for a person to read and to write."""

import re

from trainer.stops import ConfigError

_UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?) ?(GB|MB|kB)")


def amount(size: float) -> str:
    """Bytes with three digits, in powers of 1000."""
    for name, unit in _UNITS.items():
        value = size / unit
        if value >= 0.9995:  # which rounds to 1.00
            return f"{value:.0f} {name}" if value >= 100 else f"{value:.3g} {name}"
    return f"{size:.0f} B"


def bytes_of(text: str, option: str) -> int:
    """The bytes that `amount` would show so.

    Raises:
        ConfigError: `text`, given for `option`, is no such amount.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"{option} {text!r} is no amount of memory: write it like 24GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2]])
