"""What a resumed run goes on from, and which settings it may have changed."""

import re

from pydantic import ValidationError

from trainer import checkpoints
from trainer.checkpoints import Checkpoint
from trainer.config import Config
from trainer.recipe_files import read_recipe
from trainer.run_folder import RunFolder
from trainer.stops import ConfigError, RunStopped

# Settings that do not change the result, so a resumed run may have others. Where a reward is asked
# for is one; its weight is none, and so the set of rewards cannot change unnoticed either. The
# guard decides when a run ends, not what is in it until then.
_FREE = re.compile(
    r"run\.(dir|name):|rewards\.[^:]*\.(urls|api_key_env):|monitors[.:]"
    r"|scoring\.(api_key_file|deadline_s|max_outage_s):|checkpoints\.|guard\.|tracking\."
)


def checkpoint_of(folder: RunFolder, config: Config) -> Checkpoint | None:
    """The newest checkpoint of a run, None when it was stopped before its first one.

    Args:
        folder: of the run.
        config: what it is to go on with.

    Raises:
        RunStopped: the run has another configuration.
    """
    try:
        # Not `load_config`, which would lay the environment over what was written.
        old = Config.model_validate(read_recipe(folder.config))
    except ValidationError as error:
        raise RunStopped(
            f"{folder.config} is not a configuration of this version ({error.error_count()} "
            "settings do not fit); resume the run with the version that started it"
        ) from None
    changed = [line for line in old.differences(config) if not _FREE.match(line)]
    if changed:
        raise ConfigError(
            f"the run in {folder.path} has another configuration ({'; '.join(changed)}); resume "
            "it with its own, or start a new run with another --set run.name=NAME"
        )
    newest = checkpoints.newest(folder.checkpoints)
    return checkpoints.load(newest) if newest else None
