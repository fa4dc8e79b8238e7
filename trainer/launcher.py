"""What the launcher of this process asks for, torchrun or accelerate, from its environment."""

import os
from collections.abc import Mapping

from trainer.stops import ConfigError

# Settings of `accelerate` that would change what is computed, and what they are when they do not.
_NEUTRAL: Mapping[str, tuple[str, str]] = {
    "ACCELERATE_USE_FSDP": ("false", "FSDP"),
    "ACCELERATE_USE_DEEPSPEED": ("false", "DeepSpeed"),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Megatron-LM"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("false", "a parallelism_config"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "torch.compile (dynamo_backend)"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "gradient_accumulation_steps"),
}


def refuse_unsupported(environment: Mapping[str, str], dtype: str) -> None:
    """Check that nothing the launcher asks for would be ignored.

    Args:
        environment: what the launcher has set.
        dtype: `model.dtype`.

    Raises:
        ConfigError: something would be.
    """
    for name, (neutral, what) in _NEUTRAL.items():
        if environment.get(name, neutral).lower() not in (neutral, ""):
            raise ConfigError(
                f"the configuration of accelerate asks for {what} ({name}), which this trainer "
                "does not use: every process holds the whole model; turn it off with "
                "`accelerate config`, or start with torchrun"
            )
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", "", dtype):
        raise ConfigError(
            f"accelerate is asked for mixed_precision {precision}, but the run for model.dtype "
            f"{dtype}, which alone counts; make them alike, or leave --mixed_precision out"
        )
    several = int(environment.get("WORLD_SIZE", "1")) > 1
    if several and "RANK" not in environment:
        raise ConfigError(
            "WORLD_SIZE is set without RANK; start several processes with torchrun or "
            "`accelerate launch --multi_gpu`"
        )
    if "RANK" not in environment and {"MASTER_ADDR", "ACCELERATE_DYNAMO_BACKEND"} <= {*environment}:
        raise ConfigError(
            "accelerate was asked for several processes, but started this one alone, as it does on "
            "CPUs; start them with `torchrun --nproc-per-node N -m trainer train …`, or unset "
            "MASTER_ADDR if one was meant"
        )


def require_alone(command: str) -> None:
    """Check that this process was not started as one of several.

    Args:
        command: what cannot be done by several.

    Raises:
        ConfigError: it was.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{command} runs as one process; start it without a launcher")
