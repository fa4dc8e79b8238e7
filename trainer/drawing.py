"""Pictures from a model or a run, on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from trainer import checkpoints, gallery
from trainer.config import Config
from trainer.devices import device_named
from trainer.launcher import require_alone
from trainer.loading import load_policy
from trainer.rollouts import draw
from trainer.run_folder import RunFolder
from trainer.stops import RunStopped


def draw_sheet(
    config: Config, prompts: Sequence[str], *, seed: int, out: Path, trained_by: Path | None
) -> None:
    """Draw one picture per prompt and write them as one PNG.

    Args:
        config: the model, and how to sample from it.
        prompts: N prompts.
        seed: of the noise; the same seed, prompt and place give the same noise on every model.
        out: the PNG to write.
        trained_by: folder of the run whose weights are loaded into the model: those it chose at
            its end, before that those of its newest checkpoint.

    Raises:
        RunStopped: the model cannot be loaded, the run has no checkpoint, or a picture is not
            finite.
    """
    require_alone("ddpo sample")
    policy = load_policy(config.model, device_named(config.run.device), config.run.seed)
    if trained_by is not None:
        folder = RunFolder(trained_by)
        chosen = checkpoints.found(folder.checkpoints, folder.weights_epoch)
        policy.load_state(checkpoints.load(chosen).evaluated)
    tables = policy.tables(config.sampling.steps, config.sampling.eta)
    batches = list(draw(policy, tables, prompts, (seed, "drawing", 0), config.sampling))
    if not all(batch.valid.all() for batch in batches):
        raise RunStopped("a picture is not finite (NaN); set model.dtype to fp32")
    gallery.write_sheet(out, [picture for batch in batches for picture in batch.images])
