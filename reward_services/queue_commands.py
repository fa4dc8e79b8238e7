"""`reward-services status` and `dlq`: looking into the queue of a reward, and mending it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from reward_services.dead_letters import MOST_LETTERS
from reward_services.queue_report import (
    as_json,
    as_text,
    letters_as_json,
    letters_as_text,
    look,
)
from reward_services.settings import SettingsError, given_settings

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
def retry_letters(name: Name, ids: Letters) -> None:
    """Queue pictures again; their scores are kept as jobs and shown here by id."""
    _for_each(name, ids, lambda broker, letter: broker.dead_letters.retry(letter), "queued again")


@dead_letters.command("drop")
def drop_letters(name: Name, ids: Letters) -> None:
    """Forget pictures that were given up."""
    _for_each(name, ids, lambda broker, letter: broker.dead_letters.drop(letter), "dropped")


def _for_each(
    name: str, ids: list[str], act: Callable[["Broker", str], Awaitable[bool]], done: str
) -> None:
    async def run(broker: "Broker") -> bool:
        chosen = ids
        if ids == ["all"]:
            chosen = [letter.id for letter in await broker.dead_letters.list(MOST_LETTERS)]
        complete = True
        for letter in chosen:
            found = await act(broker, letter)
            complete = complete and found
            print(f"{letter}  {done if found else 'not found: see reward-services dlq list'}")
        return complete

    if not _with_broker(name, run):
        raise typer.Exit(1)


def _with_broker(name: str, ask: Callable[["Broker"], Awaitable[T]]) -> T:
    with service_packages():
        from reward_services.brokers import open_shared_broker
    settings = given_settings({})

    async def run() -> T:
        broker = open_shared_broker(settings, name)
        try:
            return await ask(broker)
        finally:
            await broker.close()

    return asyncio.run(run())
