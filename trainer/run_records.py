"""Where the numbers of a run are recorded, from the sections that say so."""

from contextlib import ExitStack

from trainer.checkpoints import RunState
from trainer.config import Config
from trainer.exporter import MetricsExporter
from trainer.run_folder import RunFolder
from trainer.tracking import MetricsLog, metrics_of


def open_records(
    config: Config, folder: RunFolder, state: RunState | None, stack: ExitStack
) -> MetricsLog:
    """The records of a run, cut to where it goes on, and open until the stack is left.

    Args:
        config: what is recorded and where.
        folder: of the run.
        state: where the run goes on; None where it begins.
        stack: what closes the records.
    """
    return stack.enter_context(
        MetricsLog(
            folder.metrics,
            folder.tensorboard if config.tracking.tensorboard else None,
            length=state.metrics_bytes if state else 0,
            epoch=state.epoch if state else 0,
            exporter=_exporter(config, stack),
        )
    )


def _exporter(config: Config, stack: ExitStack) -> MetricsExporter | None:
    """What shows the run to Prometheus until the stack is left, if that is asked for."""
    tracking = config.tracking
    if tracking.prometheus_port is None:
        return None
    address = tracking.prometheus_host, tracking.prometheus_port
    shown = metrics_of(config.rewards)
    return stack.enter_context(MetricsExporter(*address, config.run.name, shown))
