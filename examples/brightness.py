"""A reward in 15 lines: how bright is the picture, from 0 to 1?"""

from collections.abc import Sequence

from reward_services import ScoreItem


class Brightness:
    name = "brightness"
    range = (0.0, 1.0)
    max_batch_size = 64

    def score(self, items: Sequence[ScoreItem]) -> list[float]:
        """One score per item, in the order given."""
        return [float(item.image.mean()) / 255 for item in items]
