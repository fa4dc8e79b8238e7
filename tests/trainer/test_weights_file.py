"""Equal weights are equal files."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from trainer.weights_file import make_canonical


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_order_of_the_metadata_does_not_matter(tmp_path: Path, count: int) -> None:
    tensors: dict[str, npt.NDArray[Any]] = {
        "b": np.arange(5, dtype=np.float32),
        "a": np.ones((2, 3), np.float16),
    }
    metadata = {"format": "pt"} | {f"key {i}": "värde" * i for i in range(count)}
    files = []
    # The library draws an order per file, so some of these differ before.
    for attempt in range(8):
        path = tmp_path / f"{attempt}.safetensors"
        save_file(tensors, path, metadata=metadata)
        make_canonical(path)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
    loaded = load_file(tmp_path / "0.safetensors")
    assert all(np.array_equal(loaded[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "0.safetensors", "np") as file:
        assert file.metadata() == metadata
    assert int.from_bytes(files[0][:8], "little") % 8 == 0
