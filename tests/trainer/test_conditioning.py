"""Rows of conditioning are picked and put together, whatever a family has filled in."""

import pytest
import torch

from trainer.conditioning import Conditioning


def rows(*numbers: int, full: bool = True) -> Conditioning:
    """Rows that can be told apart in every tensor."""
    each = torch.tensor(numbers, dtype=torch.float32)
    embeddings = each.view(-1, 1, 1).expand(-1, 3, 2)
    if not full:
        return Conditioning(embeddings)
    return Conditioning(embeddings, each.view(-1, 1) + 10, each.view(-1, 1).expand(-1, 6) + 1015)


def check(found: Conditioning, *numbers: int, full: bool) -> None:
    expected = rows(*numbers, full=full)
    assert len(found) == len(numbers)
    for name in ("embeddings", "pooled", "time_ids"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("full", [True, False])
def test_rows_are_picked_repeated_and_put_together(full: bool) -> None:
    three = rows(1, 2, 3, full=full)
    check(three.select(torch.tensor([2, 0, 2, 1])), 3, 1, 3, 2, full=full)
    check(three.select(torch.tensor([False, True, True])), 2, 3, full=full)
    check(rows(7, full=full).expand(2), 7, 7, full=full)
    parts = [three, rows(4, full=full), rows(5, 6, full=full)]
    check(Conditioning.cat(parts), 1, 2, 3, 4, 5, 6, full=full)
    mask = torch.tensor([False, True, False])
    check(three.replaced(mask, rows(9, full=full)), 1, 9, 3, full=full)


def test_sizes_are_not_rounded() -> None:
    half = rows(2).in_precision(torch.bfloat16)
    assert half.embeddings.dtype == torch.bfloat16
    assert half.pooled is not None
    assert half.pooled.dtype == torch.bfloat16
    assert half.time_ids is not None
    assert half.time_ids.tolist() == [[1017.0] * 6]
    assert rows(2, full=False).in_precision(torch.float16).time_ids is None


def test_a_device_takes_all_of_it() -> None:
    moved = rows(1).to("meta")
    assert moved.pooled is not None
    assert moved.time_ids is not None
    assert {moved.embeddings.device.type, moved.pooled.device.type, moved.time_ids.device.type} == {
        "meta"
    }
