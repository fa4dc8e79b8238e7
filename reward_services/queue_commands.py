"""`reward-services status` and `dlq`: looking into the queue of a reward, and mending it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from reward_services.dead_letters import MOST_LETTERS, DeadLetter
from reward_services.queue_report import (
    as_json,
    as_text,
    letters_as_json,
    letters_as_text,
    look,
)
from reward_services.settings import SettingsError, given_settings
from shared.errors import BrokerUnavailable

if TYPE_CHECKING:
    from reward_services.brokers import Broker

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The reward's name, as /info says it.")]
Letters = Annotated[list[str], typer.Argument(metavar="ID...", help="From dlq list; or all.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

dead_letters = typer.Typer(no_args_is_help=True, help="Pictures that were given up.")


@contextlib.contextmanager
def service_packages() -> Iterator[None]:
    """Around an import that scoring files does without."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"this command needs {error.name}: pip install 'ddpo-reward-services[service]'"
        ) from None


def status(name: Name, json: AsJson = False) -> None:
    """Show what waits in the queue of the reward NAME, how fast it moves, and its workers."""
    report = _with_broker(name, lambda broker: look(name, broker))
    print(as_json(report) if json else as_text(report))


@dead_letters.command("list")
def list_letters(name: Name, json: AsJson = False) -> None:
    """List the pictures that were given up because their workers died, newest first."""
    letters = _with_broker(name, lambda broker: broker.dead_letters.list(MOST_LETTERS))
    print(letters_as_json(letters) if json else letters_as_text(letters))


@dead_letters.command("retry")
def retry_letters(
    name: Name,
    ids: Letters,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the scores and show them.")
    ] = False,
) -> None:
    """Queue pictures again. A picture that costs its workers again becomes a new dead letter."""

    async def retry(broker: "Broker", letter: DeadLetter) -> str | None:
        if not await broker.dead_letters.retry(letter.id):
            return None
        if not wait:
            return f"queued again as {letter.retry_job_id}"
        (result,) = (await broker.queue.result(letter.retry_job_id)).results
        return f"score {result.score}" if result.error is None else result.error.message

    _for_each(name, ids, retry)


@dead_letters.command("drop")
def drop_letters(name: Name, ids: Letters) -> None:
    """Forget pictures that were given up."""

    async def drop(broker: "Broker", letter: DeadLetter) -> str | None:
        return "dropped" if await broker.dead_letters.drop(letter.id) else None

    _for_each(name, ids, drop)


def _for_each(
    name: str, ids: list[str], act: Callable[["Broker", DeadLetter], Awaitable[str | None]]
) -> None:
    """Act on each of the letters and tell what came of it, None where it is gone."""

    async def run(broker: "Broker") -> bool:
        letters = {one.id: one for one in await broker.dead_letters.list(MOST_LETTERS)}
        complete = True
        for letter_id in letters if ids == ["all"] else ids:
            letter = letters.get(letter_id)
            outcome = None if letter is None else await act(broker, letter)
            complete = complete and outcome is not None
            print(f"{letter_id}  {outcome or 'not found: see reward-services dlq list'}")
        return complete

    if not _with_broker(name, run):
        raise typer.Exit(1)


def _with_broker(name: str, ask: Callable[["Broker"], Awaitable[T]]) -> T:
    with service_packages():
        from reward_services.brokers import open_shared_broker
    settings = given_settings({})
    # What goes wrong is said once, at the end.
    logging.getLogger("reward_services").setLevel(logging.ERROR)

    async def run() -> T:
        broker = open_shared_broker(settings, name)
        try:
            return await ask(broker)
        finally:
            await broker.close()

    try:
        return asyncio.run(run())
    except BrokerUnavailable as error:
        raise SettingsError(f"REWARD_BROKER_URL cannot be reached: {error.__cause__}") from None
