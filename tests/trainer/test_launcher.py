"""What a launcher asks for and this trainer does not do is refused, not ignored."""

from pathlib import Path

import pytest

from trainer.config import load_config
from trainer.drawing import draw_sheet
from trainer.launcher import refuse_unsupported, require_alone
from trainer.stops import ConfigError

# As accelerate 1.15 sets them where nothing is asked for.
PLAIN = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_FSDP", "true", "asks for FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "asks for DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "asks for Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "asks for a parallelism_config"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "dynamo_backend"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "mixed_precision fp16, but the run for model.dtype"),
        ("MASTER_ADDR", "127.0.0.1", "started this one alone"),
        ("WORLD_SIZE", "2", "WORLD_SIZE is set without RANK"),
    ],
)
def test_what_would_be_ignored_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        refuse_unsupported(PLAIN | {name: value}, "bf16")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        PLAIN,
        PLAIN | {"ACCELERATE_MIXED_PRECISION": "bf16"},
        PLAIN | {"MASTER_ADDR": "127.0.0.1", "RANK": "1", "WORLD_SIZE": "2"},
        {"MASTER_ADDR": "127.0.0.1"},
    ],
)
def test_what_changes_nothing_is_let_through(environment: dict[str, str]) -> None:
    refuse_unsupported(environment, "bf16")


def test_other_commands_are_for_one_process(
    monkeypatch: pytest.MonkeyPatch, micro_recipe: Path, tmp_path: Path
) -> None:
    require_alone("ddpo evaluate")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="ddpo evaluate runs as one process"):
        require_alone("ddpo evaluate")
    with pytest.raises(ConfigError, match="ddpo sample runs as one process"):
        draw_sheet(
            load_config(micro_recipe), ["a cat"], seed=0, out=tmp_path / "x.png", trained_by=None
        )
