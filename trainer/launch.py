"""The processes of a run find each other, as torchrun or accelerate has started them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.rendezvous import rendezvous

from trainer.launcher import refuse_unsupported
from trainer.processes import ALONE, Processes, reason_of
from trainer.stops import ProcessLost

_SLACK_S = 1800.0  # between two processes that reach the same exchange, outages not counted


@contextmanager
def launched(dtype: str, max_outage_s: float) -> Iterator[Processes]:
    """The processes of this run, connected until the block ends.

    Args:
        dtype: `model.dtype`, which accelerate's `mixed_precision` must agree with.
        max_outage_s: how long one of them may wait for a reward service.

    Raises:
        ConfigError: the launcher asks for what this trainer does not do, or started one process
            where several were asked for.
        ProcessLost: the others cannot be reached.
    """
    refuse_unsupported(os.environ, dtype)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    try:
        store, rank, count = next(rendezvous("env://"))
        store = c10d.PrefixStore(_attempt(), store)
        dist.init_process_group(
            "gloo",
            store=c10d.PrefixStore("exchanges", store),
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=_SLACK_S + 2 * max_outage_s),
        )
    except (RuntimeError, ValueError) as error:
        raise ProcessLost(
            f"the {count} processes of the run cannot find each other "
            f"({reason_of(error)}); look at what started them"
        ) from error
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        yield Processes(rank, count, local_rank, c10d.PrefixStore("processes", store))
    finally:
        dist.destroy_process_group()


def _attempt() -> str:
    """A name for this start of the processes, as what earlier ones stored may still be there.

    On one machine torchrun may keep its store when it starts the processes again. Over several it
    makes a new one, and the machines need not have counted alike.
    """
    here = os.environ.get("LOCAL_WORLD_SIZE")
    one_machine = here is not None and here == os.environ.get("WORLD_SIZE")
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine else "0"
