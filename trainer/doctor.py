"""`ddpo doctor`: everything that can be found out before a run starts, one line for each check."""

import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import chain
from urllib.parse import urlsplit

from trainer.config import Config
from trainer.configured_rewards import sources_of
from trainer.dry_measurement import Measured
from trainer.findings import Finding, ok, problem, warning
from trainer.memory_examination import MemoryExamination
from trainer.prompt_sets import PromptSet
from trainer.prompts import evaluation_prompts, load_prompts
from trainer.sections import ServiceSection
from trainer.service_examination import Request, ServiceExamination
from trainer.stops import RunStopped
from trainer.storage_examination import disk_space, run_folder

_PICTURE = (512, 512)
"""Sent to the services when the model could not say how large its pictures are."""


def examine(config: Config, budget: int | None = None) -> Iterator[Finding]:
    """Look at all that a run needs, cheap things first.

    Args:
        config: the run.
        budget: bytes that it may take; None: what its device has left.

    Yields:
        Findings as they are known.
    """
    yield from run_folder(config)
    prompts = yield from _prompts(config)
    services = yield from _services(config)
    if prompts is None:
        return
    memory = MemoryExamination(config, budget)
    yield from memory.findings()
    measured = memory.measured
    if measured is not None:
        yield disk_space(config, measured.trained)
        yield from _shared_device(services, measured)
    asked = _request(config, prompts, measured)
    for service in services:
        yield from service.score(asked)
    if measured is not None:
        yield from pace(config, services, measured)


def _prompts(config: Config) -> Generator[Finding, None, PromptSet | None]:
    try:
        prompts = load_prompts(config.prompts.source)
        load_prompts(config.evaluation_source, "evaluation.prompts")
    except RunStopped as stop:
        yield problem("prompts", str(stop))
        return None
    yield ok("prompts", f"{config.prompts.source}: {len(prompts.texts)}")
    return prompts


def _services(config: Config) -> Generator[Finding, None, list[ServiceExamination]]:
    """Reach every replica of every reward and monitor; those that can be scored with."""
    try:
        config.require_reward()
    except RunStopped as stop:
        yield problem("rewards", str(stop))
    kinds: Mapping[str, Mapping[str, ServiceSection]] = {
        "reward": config.rewards,
        "monitor": config.monitors,
    }
    reached = []
    for kind, sections in kinds.items():
        try:
            sources = sources_of(f"{kind}s", sections, config.scoring)
        except RunStopped as stop:
            yield problem(f"{kind}s", str(stop))
            continue
        for source in sources:
            replicas = [ServiceExamination(source, url, kind) for url in source.urls]
            yield from chain.from_iterable(each.reach() for each in replicas)
            replicas = [each for each in replicas if each.info is not None]
            yield from _same(replicas)
            reached += replicas
    return reached


def _same(replicas: Sequence[ServiceExamination]) -> Iterator[Finding]:
    for other in replicas[1:]:
        first = replicas[0]
        assert first.info is not None
        assert other.info is not None
        if difference := first.info.identity.difference(other.info.identity):
            yield problem(
                other.check,
                f"it is another reward than {first.url} ({difference}): start replicas with the "
                "same weights, or leave one out",
            )


def _shared_device(services: Sequence[ServiceExamination], measured: Measured) -> Iterator[Finding]:
    """On a CPU, services on this machine take turns with the trainer.

    Of a GPU the memory that others hold tells; what a service runs on it does not say.
    """
    here = sorted({each.source.name for each in services if _is_here(each.url)})
    if here and measured.device == "cpu":
        yield warning(
            "device",
            f"{', '.join(here)} on this machine share{'s' if len(here) == 1 else ''} its CPU with "
            "the trainer, and each slows the other: lower run.threads, or move services away",
        )


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", socket.gethostname()) or host.startswith("127.")


def _request(config: Config, prompts: PromptSet, measured: Measured | None) -> Request:
    height, width = measured.picture if measured is not None else _PICTURE
    some = evaluation_prompts(prompts, 6)
    return Request(
        batch_size=config.sampling.batch_size,
        height=height,
        width=width,
        prompts=some,
        metadata=prompts.metadata_of(some),
        deadline_s=config.scoring.deadline_s,
    )


def pace(
    config: Config, services: Sequence[ServiceExamination], measured: Measured
) -> Iterator[Finding]:
    """Whether scoring a batch takes longer than drawing the next, for every reward that scored."""
    drawing = measured.seconds["sampling"]
    for service in services:
        if service.seconds is None or service.kind != "reward":
            continue
        said = (
            f"a batch of {config.sampling.batch_size} takes {drawing:.3g} s to draw and "
            f"{service.seconds:.3g} s to score"
        )
        if service.seconds > drawing * len(service.source.urls):
            yield warning(
                service.check, f"{said}: the run will wait for scores; add a worker or a replica"
            )
        else:
            yield ok(service.check, said)
