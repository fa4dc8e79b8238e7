"""What the model card is made from: read, counted, or missed with the command that makes it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoji_world.model_records import read_records, wilson_interval
from emoji_world.vocabulary import STYLES

LOCK = Path(__file__).parents[2] / "emoji_world" / "package-lock.json"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    weights: dict[str, dict[str, tuple[int, ...]]] = {
        "diffusion/unet/diffusion_pytorch_model": {"conv.weight": (3, 4, 5), "conv.bias": (3,)},
        "diffusion/text_encoder/model": {"table": (7, 2), "embeddings.position_ids": (1, 16)},
        "diffusion/vae/diffusion_pytorch_model": {"conv.weight": (2, 2)},
        "classifier/model": {"0.weight": (9,), "0.running_var": (9,), "0.num_batches_tracked": ()},
    }
    for name, shapes in weights.items():
        file = tmp_path / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: np.zeros(shape, np.float32) for key, shape in shapes.items()}, file)
    (tmp_path / "classifier" / "accuracy.json").write_text('{"animal": 0.99}')
    training = tmp_path / "training"
    training.mkdir()
    for name in ("plan", "decoder", "dataset", "quality"):
        (training / f"{name}.json").write_text('{"one": 1}')
    rows = [(1, 10.0), (2, 20.0), (2, 5.0), (3, 15.0)]
    (training / "log.jsonl").write_text(
        "".join(json.dumps({"step": step, "seconds": seconds}) + "\n" for step, seconds in rows)
    )
    return tmp_path


def test_parameters_are_counted_without_statistics(models: Path) -> None:
    records = read_records(models, LOCK)
    assert records.parameters == {"unet": 63, "text_encoder": 14, "vae": 4, "classifier": 9}
    unet = models / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    assert records.megabytes["unet"] == unet.stat().st_size / 1e6


def test_time_is_summed_over_sessions_and_a_repeated_step_counts_once(models: Path) -> None:
    records = read_records(models, LOCK)
    assert records.seconds == 35
    assert [row["step"] for row in records.log] == [1, 2, 3]


def test_the_artwork_is_that_of_the_lock_file(models: Path) -> None:
    artwork = read_records(models, LOCK).artwork
    assert tuple(package.style for package in artwork) == STYLES
    assert {package.licence for package in artwork} == {"Apache-2.0", "MIT"}
    assert all(package.version.count(".") == 2 for package in artwork)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("training/plan.json", "export"),
        ("training/log.jsonl", "export"),
        ("training/decoder.json", "export"),
        ("training/dataset.json", "export"),
        ("training/quality.json", "evaluate"),
        ("classifier/accuracy.json", "classifier"),
    ],
)
def test_a_missing_record_names_the_command_that_makes_it(
    models: Path, file: str, command: str
) -> None:
    (models / file).unlink()
    with pytest.raises(ValueError, match=rf"{Path(file).name}.*python -m emoji_world {command}"):
        read_records(models, LOCK)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_is_refused(models: Path, content: str) -> None:
    (models / "training" / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json is damaged"):
        read_records(models, LOCK)


def test_an_empty_or_damaged_log_is_refused(models: Path) -> None:
    log = models / "training" / "log.jsonl"
    log.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_records(models, LOCK)
    log.write_text('{"step": 1')
    with pytest.raises(ValueError, match=r"log\.jsonl is damaged"):
        read_records(models, LOCK)


def test_missing_and_damaged_weights_are_refused(models: Path) -> None:
    unet = models / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    unet.write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        read_records(models, LOCK)
    unet.unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        read_records(models, LOCK)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0)],
)
def test_intervals_of_shares(share: float, count: int, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)
