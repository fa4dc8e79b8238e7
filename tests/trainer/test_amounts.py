"""Bytes as people write them."""

import pytest

from trainer.amounts import amount, bytes_of
from trainer.stops import ConfigError


def test_amounts() -> None:
    sizes = [12, 999, 1000, 3.19e6, 9.9999e8, 1.72e9, 1.234e12]
    assert [amount(size) for size in sizes] == [
        "12 B", "999 B", "1 kB", "3.19 MB", "1 GB", "1.72 GB", "1234 GB"
    ]  # fmt: skip


@pytest.mark.parametrize("size", [5e3, 1.72e9, 500e6, 80e9])
def test_what_is_shown_can_be_written(size: float) -> None:
    assert bytes_of(amount(size), "--memory") == size
    assert bytes_of(amount(size).replace(" ", ""), "--memory") == size


@pytest.mark.parametrize("text", ["", "8", "8G", "GB", "-1GB", "0GB", "8GB or so"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--memory .* write it like 24GB or 500MB"):
        bytes_of(text, "--memory")
