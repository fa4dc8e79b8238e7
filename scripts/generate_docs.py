"""Write the generated tables of the docs from the code's own declarations.

A Markdown file marks where a table goes:

    <!-- generated: settings trainer -->
    <!-- end -->

Run without arguments to renew all tables, with `--check` to fail when one is out of date.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup, TyperOption

import reward_services.cli
import trainer.cli
from reward_services.metrics import Metrics
from reward_services.models.model_options import ModelOptions
from reward_services.models.vision_language import VisionLanguageOptions
from reward_services.options import RewardOptions
from reward_services.scorers.aesthetic import AestheticOptions
from reward_services.scorers.clip_score import ClipScoreOptions
from reward_services.scorers.llava_bertscore import LlavaBertScoreOptions
from reward_services.scorers.llava_vqa import LlavaVqaOptions
from reward_services.scorers.pickscore import PickScoreOptions
from reward_services.settings import PREFIX, ServiceSettings
from scripts.hyperparameters import advice
from shared.errors import BY_CODE, ImageError
from trainer.config import Config
from trainer.sections import RewardSection, ServiceSection
from trainer.studies.results import HEAD, cells, results
from trainer.studies.rows import RowsFile
from trainer.tracking import METRICS

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def shown(value: object) -> str:
    """A default as it is written in a recipe."""
    if value is None or value in ((), "", {}):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every setting below a section, nested sections included."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def trainer_sections() -> Iterator[tuple[str, str, dict[str, FieldInfo]]]:
    """Name, description and settings of every section of a run's configuration."""
    services = {"rewards": RewardSection, "monitors": ServiceSection}
    for name, field in Config.model_fields.items():
        section = field.annotation
        prefix = f"{name}."
        about = one_line(field.description)
        if name in services:
            section, prefix = services[name], f"{name}.NAME."
            about = f"{about} {one_line(services[name].__doc__)}"
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        yield name, about, dict(settings(section, prefix))


def default_of(entry: FieldInfo) -> str:
    return "required" if entry.is_required() else shown(entry.default)


def trainer_settings() -> str:
    blocks = []
    for name, about, entries in trainer_sections():
        rows = [
            (f"`{key}`", default_of(entry), one_line(entry.description))
            for key, entry in entries.items()
        ]
        heading = f"### `[{name}]`\n\n{about}\n\n"
        blocks.append(heading + table(("setting", "default", "meaning"), *rows))
    return "\n".join(blocks)


def hyperparameters() -> str:
    """The same settings with what was published, and when to change them."""
    sections = list(trainer_sections())
    known = advice({key for _, _, entries in sections for key in entries})
    head = ("setting", "default", "paper", "ddpo-pytorch", "meaning", "when to change it")
    blocks = []
    for name, about, entries in sections:
        rows = [
            (
                f"`{key}`",
                default_of(entry),
                known[key].paper or "–",
                known[key].code or "–",
                one_line(entry.description),
                known[key].when,
            )
            for key, entry in entries.items()
        ]
        blocks.append(f"## `[{name}]`\n\n{about}\n\n{table(head, *rows)}")
    return "\n".join(blocks)


def service_settings() -> str:
    rows = [
        (f"`{PREFIX}{name.upper()}`", shown(field.default), one_line(field.description))
        for name, field in ServiceSettings.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), *rows)


def reward_options(kind: type[RewardOptions]) -> str:
    """The options that a class adds to those it inherits."""
    inherited = kind.__mro__[1]
    assert issubclass(inherited, RewardOptions)
    rows = [
        (f"`{name}`", shown(field.default), one_line(field.description))
        for name, field in kind.model_fields.items()
        if name not in inherited.model_fields
    ]
    return table(("option", "default", "meaning"), *rows)


def trainer_metrics() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in METRICS.items()]
    return table(("metric", "meaning"), *rows)


def series_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def service_metrics() -> str:
    families = sorted(Metrics("example").registry.collect(), key=lambda family: family.name)
    rows = [(f"`{series_name(each)}`", each.type, each.documentation) for each in families]
    return table(("series", "type", "meaning"), *rows)


def error_codes() -> str:
    of_requests = sorted(BY_CODE.values(), key=lambda cls: (cls.status, cls.code))
    rows = [
        (str(cls.status), f"`{cls.code}`", "yes" if cls.retryable else "no", one_line(cls.__doc__))
        for cls in of_requests
    ]
    of_items = [
        ("item", f"`{cls.code}`", "no", one_line(cls.__doc__))
        for cls in ImageError.__subclasses__()
    ]
    return table(("status", "code", "retry", "meaning"), *rows, *of_items)


def command_line(program: str, app: typer.Typer) -> str:
    """Every command with its arguments and options."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return "\n".join(command_blocks(program, group))


def command_blocks(program: str, group: TyperGroup) -> Iterator[str]:
    """The commands of a group, and those of the groups in it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from command_blocks(f"{program} {name}", command)
            continue
        arguments = [each for each in command.params if isinstance(each, TyperArgument)]
        usage = " ".join(
            [program, name, *(each.metavar or str(each.name).upper() for each in arguments)]
        )
        rows = [
            (
                ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts]),
                one_line(option.help),
            )
            for option in command.params
            if isinstance(option, TyperOption) and not option.hidden
        ]
        yield f"### `{usage}`\n\n{one_line(command.help)}\n"
        if rows:
            yield table(("option", "meaning"), *rows)


def files() -> str:
    """Every module with the first sentence of its docstring."""
    blocks = []
    for folder in (
        "trainer",
        "reward_services",
        "shared",
        "emoji_world",
        "scripts",
        "benchmarks",
        "examples",
        "experiments",
        "docker",
    ):
        paths = (ROOT / folder).rglob("*.py")
        rows = [
            (f"`{path.relative_to(ROOT)}`", one_line(first_paragraph(path)))
            for path in sorted(paths)
            if "node_modules" not in path.parts
        ]
        blocks.append(f"## {folder}\n\n{table(('file', 'what'), *rows)}")
    return "\n".join(blocks)


def first_paragraph(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].rstrip(":")


def study(name: str) -> str:
    """Results of a study and where each of its rows comes from; nothing while it has no rows."""
    rows = RowsFile(ROOT / "docs" / "results" / f"{name}.json").read()
    shown = [tuple(cells(result)) for result in results(rows)]
    return table(HEAD, *shown) if shown else "No run of this study is finished.\n"


GENERATORS: dict[str, Callable[[], str]] = {
    "settings trainer": trainer_settings,
    "hyperparameters": hyperparameters,
    "settings service": service_settings,
    "options models": lambda: reward_options(ModelOptions),
    "options vision": lambda: reward_options(VisionLanguageOptions),
    "options aesthetic": lambda: reward_options(AestheticOptions),
    "options clip_score": lambda: reward_options(ClipScoreOptions),
    "options pickscore": lambda: reward_options(PickScoreOptions),
    "options llava_bertscore": lambda: reward_options(LlavaBertScoreOptions),
    "options llava_vqa": lambda: reward_options(LlavaVqaOptions),
    "metrics trainer": trainer_metrics,
    "metrics service": service_metrics,
    "errors": error_codes,
    "files": files,
    "cli ddpo": lambda: command_line("ddpo", trainer.cli.app),
    "cli reward-services": lambda: command_line("reward-services", reward_services.cli.app),
}


def renewed(text: str) -> str:
    """The text with every generated block written anew."""
    return BLOCK.sub(lambda match: f"{match[1]}{generated(match[2])}{match[3]}", text)


def generated(block: str) -> str:
    """What a block of this name holds: one of `GENERATORS`, or `study NAME`."""
    kind, _, name = block.partition(" ")
    return study(name) if kind == "study" else GENERATORS[block]()


def main() -> None:
    """Renew all tables, or with --check only compare."""
    stale = []
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        before = file.read_text(encoding="utf-8")
        after = renewed(before)
        if before != after:
            stale.append(str(file.relative_to(ROOT)))
            if "--check" not in sys.argv[1:]:
                file.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")
    print(f"renewed: {', '.join(stale) or 'nothing, all tables were current'}")


if __name__ == "__main__":
    main()
