"""The processes of one run: how the work is shared, what is exchanged, and how all stop together.

Every process runs the whole program, each on its share of the pictures and of the gradient. What
one of them meets, be it a signal, a reward service that stays away or a fault, is agreed on at the
end of the block in which it happened (`Processes.together`): all go on, or all stop with that one
error. Inside such a block a process works alone and exchanges nothing.

JSON and tensors are all that is exchanged; nothing is unpickled.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d

from trainer.stops import ConfigError, ProcessLost, RunStopped, StoppedElsewhere, described, rebuilt

_ALARM = "alarm"
_LONGEST_PAUSE_S = 0.05
_DIMENSIONS = 8  # room for the shape of what is gathered

Scalar = TypeVar("Scalar", bound=np.generic)


def _nothing() -> None:
    """There is nothing to check."""


class Processes:
    """This process among those of its run. Without arguments: the only one, and nothing is done.

    Args:
        rank: which one this is, from 0.
        count: how many there are.
        local_rank: which one this is on its machine, from 0.
        store: what all of them can read and write at any time.

    Raises:
        ProcessLost: from every exchange, when another process has ended.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_rank: int = 0, store: c10d.Store | None = None
    ) -> None:
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self._store = store
        self._device_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """True in the one process that writes: files, checkpoints, lines at the terminal."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """The parts of a whole that are this process's, in a row; the numbers differ by 1 at most.

        Args:
            parts: how many there are for all.
        """
        return range(parts * self.rank // self.count, parts * (self.rank + 1) // self.count)

    def use_device(self, device: torch.device) -> None:
        """Exchange the tensors of a GPU by NCCL, without the way through the CPU.

        Args:
            device: this process's; all have the same type.
        """
        self.require_same("the type of run.device", device.type)
        if self.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)
            with self._exchanging():
                self._device_group = dist.new_group(backend="nccl")

    @contextmanager
    def together(self, check: Callable[[], None] = _nothing) -> Iterator[None]:
        """A block in which each works alone. What stops one of them stops all at its end.

        Args:
            check: called while waiting for the others; what it raises stops all as well.

        Raises:
            RunStopped: what another process met; what this one met is raised as it is.
        """
        if self.count == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except ProcessLost:
            raise
        except Exception as met:
            error = met
            self._alarm()
        self._agree(error, check)

    def check(self) -> None:
        """Call where a block of `together` can be left, so that all leave it soon.

        Raises:
            StoppedElsewhere: another process has been stopped.
        """
        if self._store is None:
            return
        with self._exchanging():
            alarmed = self._store.check([_ALARM])
        if alarmed:
            raise StoppedElsewhere("another process of this run has been stopped")

    def from_main(self, compute: Callable[[], Any]) -> Any:
        """What the main process computes, in every process; what stops it stops all.

        Args:
            compute: gives a JSON value; called in the main process alone.
        """
        if self.count == 1:
            return compute()
        value = None
        with self.together():
            if self.is_main:
                value = compute()
        return self._gather_json(value)[0]

    def require_same(self, name: str, value: Any) -> None:
        """Check that every process has the same.

        Args:
            name: what it is, for the message.
            value: a JSON value; of tables only what differs is told.

        Raises:
            ConfigError: in all processes, when they differ.
        """
        if self.count == 1:
            return
        values = self._gather_json(value)
        for rank, each in enumerate(values):
            if each != values[0]:
                first, other = _differing(values[0], each)
                raise ConfigError(
                    f"the processes of a run must be alike, but {name} is {first!r} in process 0 "
                    f"and {other!r} in process {rank}; start all of them by the same command"
                )

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks.

        Args:
            rows: (n, …); n may differ between the processes. Of 0 rows the rest of the shape may
                be left out.

        Returns:
            (Σ n, …) on the same device.
        """
        if self.count == 1:
            return rows
        shapes = self._shapes(rows)
        counts = [shape[0] for shape in shapes]
        full = next((shape for shape in shapes if shape[0]), None)
        if full is None:
            return rows
        most = max(counts)
        padded = rows.new_zeros((most, *full[1:]))
        if len(rows):
            padded[: len(rows)] = rows
        found = rows.new_empty((self.count * most, *full[1:]))
        with self._exchanging():
            dist.all_gather([*torch.split(found, most)], padded, group=self._group_of(rows))
        if min(counts) == most:
            return found
        return torch.cat(
            [part[:n] for part, n in zip(torch.split(found, most), counts, strict=True)]
        )

    def gather_array(self, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """`gather` for an array of numbers or truth values."""
        if self.count == 1:
            return rows
        sent = np.ascontiguousarray(rows)
        plain = sent.view(np.uint8) if sent.dtype == np.bool_ else sent
        found: npt.NDArray[Any] = self.gather(torch.from_numpy(plain)).numpy()
        return found.view(rows.dtype)

    def gather_json(self, value: Any) -> list[Any]:
        """The JSON value of each process, in the order of their ranks."""
        return [value] if self.count == 1 else self._gather_json(value)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in place and by one exchange in fp32.

        A parameter without a gradient in any process is left without one.
        """
        if self.count == 1:
            return
        given = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        known = given[0].new_tensor([float(p.grad is not None) for p in parameters])
        whole = torch.cat([known, *(gradient.flatten() for gradient in given)])
        with self._exchanging():
            dist.all_reduce(whole, group=self._group_of(whole))
        sizes = [len(parameters), *(gradient.numel() for gradient in given)]
        places = torch.split(whole, sizes)
        for parameter, summed, some in zip(parameters, places[1:], places[0].tolist(), strict=True):
            parameter.grad = summed.view_as(parameter).clone() if some else None

    def _alarm(self) -> None:
        assert self._store is not None
        with self._exchanging():
            self._store.set(_ALARM, "")

    def _agree(self, error: Exception | None, check: Callable[[], None]) -> None:
        """Wait for the others; raise the error of the first process that has one."""
        stopping = torch.tensor([error is not None], dtype=torch.int32)
        with self._exchanging():
            work = dist.all_reduce(stopping, dist.ReduceOp.MAX, async_op=True)
            pause = 0.001
            while not work.is_completed():
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                if error is None:
                    error = self._met(check)
            work.wait()
        if not stopping.item():
            return  # what was met too late for this time is met again by the next check
        error = error or self._met(check)
        told = [each for each in self._gather_json(described(error, self.rank)) if each]
        first = next((each for each in told if each["kind"] != StoppedElsewhere.__name__), told[0])
        if error is not None and first["rank"] == self.rank and not isinstance(error, OSError):
            raise error
        raise rebuilt(first)

    def _met(self, check: Callable[[], None]) -> RunStopped | None:
        try:
            check()
        except RunStopped as met:
            self._alarm()
            return met
        return None

    def _gather_json(self, value: Any) -> list[Any]:
        line = np.frombuffer(json.dumps(value).encode() + b"\n", np.uint8).copy()
        lines = self.gather(torch.from_numpy(line)).numpy().tobytes().splitlines()
        return [json.loads(each) for each in lines]

    def _shapes(self, rows: Tensor) -> list[list[int]]:
        """The shape of what each process has."""
        header = torch.zeros(_DIMENSIONS + 1, dtype=torch.int64)
        header[: rows.dim() + 1] = torch.tensor([rows.dim(), *rows.shape])
        headers = header.new_empty(self.count * len(header))
        with self._exchanging():
            dist.all_gather([*torch.split(headers, len(header))], header)
        return [shape[1 : 1 + shape[0]] for shape in headers.view(self.count, -1).tolist()]

    def _group_of(self, tensor: Tensor) -> dist.ProcessGroup | None:
        return self._device_group if tensor.device.type == "cuda" else None

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Tell an exchange that failed from a mistake of one's own."""
        try:
            yield
        except RuntimeError as error:  # what every error of torch.distributed is
            raise ProcessLost(
                f"process {self.rank} of {self.count} has lost the others: one of them has ended "
                f"without a word, or its machine is out of reach ({reason_of(error)}); correct the "
                "cause, and go on from the newest checkpoint with --resume"
            ) from error


def reason_of(error: Exception) -> str:
    """The first sentence of an error of torch.distributed, without its line of C++."""
    return re.sub(r"\[/[^\]]*\] ?", "", str(error)).splitlines()[0].partition(". ")[0]


def _differing(first: Any, other: Any) -> tuple[Any, Any]:
    """Of two tables the entries in which they differ; of anything else all."""
    if not (isinstance(first, dict) and isinstance(other, dict)):
        return first, other
    same = {key for key in first.keys() & other.keys() if first[key] == other[key]}
    mine, others = ({k: v for k, v in each.items() if k not in same} for each in (first, other))
    return mine, others


ALONE = Processes()
"""The only process of a run."""
