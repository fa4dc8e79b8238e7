"""The JPEG reward, slow enough that a kill finds it at work."""

import time
from collections.abc import Sequence

from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers.jpeg import jpeg_compressibility

SECONDS_PER_PICTURE = 0.04


class SlowJpeg:
    """Scores as `jpeg_compressibility`, after a sleep."""

    name = "slow_jpeg"
    version = "1"
    max_batch_size = 8
    needs_prompt = False

    def __init__(self) -> None:
        self._jpeg = jpeg_compressibility()

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        time.sleep(SECONDS_PER_PICTURE * len(items))
        return self._jpeg.score(items)
