"""A short chaos, with the same checks as `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos import Plan, unleash
from tests.conftest import need_redis

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_nothing_is_lost_invented_or_left_behind(tmp_path: Path) -> None:
    need_redis()
    outcome = unleash(Plan(jobs=40, seed=1, clients=8, workers=2, redis_kills=1), tmp_path)
    assert outcome.clean, "\n".join([*outcome.notes, str(outcome)])
    assert outcome.jobs == 40
    # Redis once, and the workers now and then.
    assert outcome.kills >= 2
