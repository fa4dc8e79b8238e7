"""Many rows through a model in passes it can hold, each row's result the same in any company.

On a CPU a matrix product of another height is summed in another order: the last bits of a row
change with the rows beside it. Passes of one fixed size, filled up with copies, do not; the place
of a row within a pass was measured not to matter (see docs/rewards.md).
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Batches:
    """Passes of at most `size` rows; of exactly `size` when `fixed`.

    Attributes:
        size: halved, for good, each time a GPU runs out of memory.
    """

    def __init__(self, size: int, fixed: bool) -> None:
        self.size = size
        self._fixed = fixed

    def run(
        self, function: Callable[[list[int]], Sequence[R]], rows: Sequence[int]
    ) -> list[R | None]:
        """One result per row, in order; None for a row that alone is too much for the GPU.

        Args:
            function: takes numbers of rows, and gives one result for each.
            rows: the numbers.
        """
        results: list[R | None] = []
        while len(results) < len(rows):
            part = list(rows[len(results) : len(results) + self.size])
            filled = part + part[-1:] * (self.size - len(part)) if self._fixed else part
            try:
                results += function(filled)[: len(part)]
                continue
            except torch.OutOfMemoryError:
                # Freed below, outside: the exception holds the frames that hold the tensors.
                pass
            torch.cuda.empty_cache()
            if len(part) == 1:
                results.append(None)
                continue
            self.size = len(part) // 2
            logger.warning(
                "out of GPU memory with %d rows: from now on at most %d", len(part), self.size
            )
        return results
