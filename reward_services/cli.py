"""`reward-services serve | api | worker | status | dlq | score | check | convert`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from reward_services import queue_commands
from reward_services.contract import check_scorer
from reward_services.loading import ScorerLoadError, load_scorer
from reward_services.options import SetupError
from reward_services.scorer import ScoreItem, ScorerContractError, describe
from reward_services.scoring import BatchHung, score_batch
from reward_services.settings import ServiceSettings, SettingsError, given_settings
from reward_services.worker_registry import IdentityConflict
from shared.errors import ImageError, ServiceUnavailable
from shared.images import decode_image
from shared.logs import configure_logging
from shared.schema import ItemFault, ItemResult

app = typer.Typer(
    name="reward-services",
    help="Serve rewards for pictures over HTTP, or score files without a server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Reward = Annotated[
    str, typer.Argument(metavar="REWARD", help="A short name, or module:Class of your own reward.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Let other machines in without an API key.")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the reward; repeatable."),
]
LogLevel = Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")]


@app.command()
def serve(
    reward: Reward,
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    options: Options = None,
    log_level: LogLevel = "INFO",
) -> None:
    """Serve REWARD over HTTP. Everything else is set by REWARD_* variables (see the docs)."""
    with queue_commands.service_packages():
        from reward_services import service
    _configure_logging(log_level)
    given = {"host": host, "port": port, "insecure": insecure or None}
    service.serve(reward, _settings(**given, options=_options(options)))


@app.command("api")
def serve_api(
    name: queue_commands.Name,
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    log_level: LogLevel = "INFO",
) -> None:
    """Serve the reward NAME over HTTP, scored by `worker` processes behind the same broker."""
    if ":" in name:
        raise SettingsError(f"{name}: an API takes the reward's name, and workers module:Class")
    with queue_commands.service_packages():
        from reward_services import api_process
    _configure_logging(log_level)
    api_process.serve_api(name, _settings(host=host, port=port, insecure=insecure or None))


@app.command("worker")
def work(
    reward: Reward,
    host: Host = None,
    port: Port = None,
    options: Options = None,
    log_level: LogLevel = "INFO",
) -> None:
    """Score with REWARD what `api` processes behind the same broker are asked for.

    The port is for /livez, /readyz and /metrics alone.
    """
    with queue_commands.service_packages():
        from reward_services import worker_process
    _configure_logging(log_level)
    settings = _settings(host=host, worker_port=port, options=_options(options))
    worker_process.work(reward, settings)


app.command("status")(queue_commands.status)
app.add_typer(queue_commands.dead_letters, name="dlq")


@app.command()
def score(
    reward: Reward,
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="One for all files, or one per file.")
    ] = None,
    options: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, also on a terminal.")] = False,
) -> None:
    """Score image files here, without a server; JSON when piped, a table on a terminal."""
    settings = _settings(options=_options(options))
    scorer = load_scorer(reward, settings.options)
    prompts = _prompts(prompt or [], len(files))
    size = describe(scorer).max_batch_size
    results: list[ItemResult] = []
    for start in range(0, len(files), size):
        part = slice(start, start + size)
        items = [
            _item(*pair, settings.max_pixels)
            for pair in zip(files[part], prompts[part], strict=True)
        ]
        scored = iter(score_batch(scorer, [item for item in items if isinstance(item, ScoreItem)]))
        results.extend(
            next(scored) if isinstance(item, ScoreItem) else ItemResult(error=item)
            for item in items
        )
    _print(files, results, describe(scorer).units, as_json or not sys.stdout.isatty())
    if any(result.error for result in results):
        raise typer.Exit(1)


@app.command()
def check(
    reward: Reward,
    tolerance: Annotated[
        float, typer.Option(help="How far scores may lie apart that should be equal.")
    ] = 0.0,
    options: Options = None,
) -> None:
    """Check that REWARD keeps the contract; exit code 1 when it does not."""
    given = _settings(options=_options(options)).options
    failed = 0
    for finding in check_scorer(lambda: load_scorer(reward, given), tolerance):
        failed += not finding.passed
        print(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.name}: {finding.message}")
    if failed:
        print(f"{failed} checks failed")
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="PTH", help="The published file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new `.safetensors` file.")],
    checksum: Annotated[
        str, typer.Option(help="SHA-256 of PTH, where it is not the published head.")
    ] = "",
) -> None:
    """Write the head of the aesthetic reward as safetensors, which can hold no code."""
    try:
        from reward_services.scorers.aesthetic import convert_head
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"converting needs {error.name}: pip install 'ddpo-reward-services[aesthetic]'"
        ) from None
    convert_head(source, target, checksum)


def _options(given: list[str] | None) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or []]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise SettingsError(f"--set {wrong[0]}: write it as NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _settings(**given: object) -> ServiceSettings:
    return given_settings({name: value for name, value in given.items() if value is not None})


def _configure_logging(level: str) -> None:
    try:
        configure_logging(level)
    except ValueError as error:
        raise SettingsError(f"--log-level: {error}") from None


def _prompts(prompts: list[str], count: int) -> list[str]:
    if len(prompts) <= 1:
        return (prompts or [""]) * count
    if len(prompts) != count:
        raise SettingsError(f"{count} files but {len(prompts)} prompts: give one, or one per file")
    return prompts


def _item(file: Path, prompt: str, max_pixels: int) -> ScoreItem | ItemFault:
    try:
        return ScoreItem(decode_image(file.read_bytes(), max_pixels=max_pixels), prompt)
    except ImageError as error:
        return ItemFault(code=error.code, message=error.message, retryable=False)
    except OSError as error:
        message = f"cannot read the file: {error.strerror}"
        return ItemFault(code="file_unreadable", message=message, retryable=False)


def _print(files: list[Path], results: list[ItemResult], units: str, as_json: bool) -> None:
    if as_json:
        rows = [
            {"file": str(file), **result.model_dump(exclude_none=True)}
            for file, result in zip(files, results, strict=True)
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(len(str(file)) for file in files)
    for file, result in zip(files, results, strict=True):
        what = result.error.message if result.error else f"{result.score:.6g} {units}"
        details = " ".join(f"{key}={value}" for key, value in result.details.items())
        print(f"{file!s:<{width}}  {what}  {details}".rstrip())


def main() -> None:
    """Run the command line; a foreseen error is one line and exit code 1."""
    try:
        app()
    except (
        ScorerLoadError,
        ScorerContractError,
        SettingsError,
        SetupError,
        IdentityConflict,
        ServiceUnavailable,
    ) as error:
        print(f"reward-services: {error}", file=sys.stderr)
        sys.exit(1)
    except BatchHung as error:
        print(f"reward-services: {error}", file=sys.stderr, flush=True)
        # An ordinary exit would wait for the thread that hangs.
        os._exit(1)
