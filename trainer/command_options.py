"""Options that several commands take, and what they mean."""

from collections.abc import Sequence
from typing import Annotated

import typer

from trainer.sections import Algorithm
from trainer.stops import ConfigError

RecipeName = Annotated[
    str, typer.Option(help="Name of a shipped recipe (`ddpo recipes`), or a TOML file.")
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=URL[,URL…]", help="As `ddpo train`; may be repeated."),
]
Monitors = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=URL[,URL…]", help="As `ddpo train`; may be repeated."),
]
AlgorithmName = Annotated[
    Algorithm | None, typer.Option(help="The same as --set training.algorithm=….")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."),
]


def named_services(kind: str, options: Sequence[str]) -> dict[str, str]:
    """`name=url` options as a table; a URL may be several with commas.

    Raises:
        ConfigError: an option has another form, or a name comes twice.
    """
    rewards: dict[str, str] = {}
    for option in options:
        name, equals, url = (part.strip() for part in option.partition("="))
        if not equals or not name or not url:
            raise ConfigError(
                f"--{kind} {option!r} is not of the form NAME=URL, for example "
                "jpeg_compressibility=http://localhost:8001"
            )
        if name in rewards:
            raise ConfigError(f"--{kind} {name} is given twice; keep one")
        rewards[name] = url
    return rewards
