"""Passes of a fixed size, and what happens when a GPU runs out of memory."""

import logging

import pytest
import torch

from reward_services.models.batches import Batches


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("fixed", [True, False])
def test_one_result_per_row_in_order(count: int, fixed: bool) -> None:
    passes: list[int] = []

    def function(rows: list[int]) -> list[int]:
        passes.append(len(rows))
        return [row * 10 for row in rows]

    rows = [row + 5 for row in range(count)]
    assert Batches(4, fixed).run(function, rows) == [row * 10 for row in rows]
    assert sum(passes) == (-(-count // 4) * 4 if fixed else count)
    if fixed:
        assert set(passes) <= {4}


def test_memory_that_runs_out_halves_the_passes_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passes: list[int] = []

    def function(rows: list[int]) -> list[int]:
        passes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        return rows

    batches = Batches(16, fixed=False)
    with caplog.at_level(logging.WARNING):
        assert batches.run(function, range(16)) == list(range(16))
    assert passes == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert batches.size == 2
    assert "from now on at most 2" in caplog.text
    assert batches.run(function, range(3)) == [0, 1, 2]
    assert passes[-2:] == [2, 1]


def test_a_row_that_alone_is_too_much_has_no_result() -> None:
    def function(rows: list[int]) -> list[int]:
        if 2 in rows:
            raise torch.OutOfMemoryError
        return rows

    assert Batches(4, fixed=False).run(function, range(5)) == [0, 1, None, 3, 4]


def test_another_fault_is_not_taken_for_a_lack_of_memory() -> None:
    def function(rows: list[int]) -> list[int]:
        raise RuntimeError(f"shapes of {rows}")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4, fixed=False).run(function, range(5))


@pytest.mark.gpu
def test_a_real_lack_of_memory() -> None:
    free, _ = torch.cuda.mem_get_info()

    def function(rows: list[int]) -> list[int]:
        block = torch.empty(len(rows) * (free // 4), dtype=torch.uint8, device="cuda")
        return [int(block[0] * 0)] * len(rows)

    batches = Batches(16, fixed=False)
    assert batches.run(function, range(16)) == [0] * 16
    assert batches.size in (1, 2)
