"""Nested tables: merged, flattened, written as TOML."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trainer.tables import flatten, merge, parse_override, to_toml

text = st.text(st.characters(codec="utf-8"), max_size=5)
scalars = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = scalars | st.lists(scalars, max_size=3)
tables = st.recursive(
    st.dictionaries(text, values, max_size=4),
    lambda inner: st.dictionaries(text, inner | values, max_size=3),
    max_leaves=5,
)


@given(table=tables)
def test_toml_gives_the_table_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_unset_values_are_left_out() -> None:
    assert to_toml({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"


def test_merging_keeps_what_the_stronger_table_does_not_name() -> None:
    base: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": "url"}
    merge(base, {"a": {"b": 3}, "d": {"url": 4}})
    assert base == {"a": {"b": 3, "c": 2}, "d": {"url": 4}}


def test_flattening() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": {}, "e": [1]}) == {"a.b.c": 1, "d": {}, "e": [1]}


def test_overrides_keep_scalars_as_text() -> None:
    assert parse_override("a.b.c = 1e-4") == {"a": {"b": {"c": "1e-4"}}}
    assert parse_override("a.b=x=y") == {"a": {"b": "x=y"}}
    assert parse_override('a.b={c = ["d"]}') == {"a": {"b": {"c": ["d"]}}}
