"""`ddpo evaluate`: the base model against checkpoints of its run, on any prompts, by any rewards.

RUN/evaluations/NAME/
    results.json                  scores, means and differences, see `trainer.comparison_results`
    SET.png                       same prompt and noise side by side: base | first checkpoint | …
    SET/base/000.png, …           the pictures, lossless, in the order of the prompts
    SET/epoch-00028/000.png, …

All of it is written into a hidden folder and moved to its place at the end, so what stands there is
complete, however the command ends. Nothing is trained, and nothing else of the run is touched.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from trainer import checkpoints, gallery
from trainer.comparison_results import BASE, PromptSetResults, Results, compared
from trainer.config import Config, load_config
from trainer.configured_rewards import services_of
from trainer.devices import device_named
from trainer.evaluation import EvaluationPlan, draw_and_judge
from trainer.gallery import Measured
from trainer.launcher import require_alone
from trainer.loading import load_policy
from trainer.prompts import load_prompts
from trainer.rewards import RewardServices
from trainer.run_folder import RunFolder, write_json
from trainer.sections import ServiceSection
from trainer.stops import ConfigError, RunStopped
from trainer.terminal import Terminal

RESULTS = "results.json"


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        run: folder of the run.
        rewards: name → URL of its service, or those of its replicas with commas.
        prompts: prompt sets, or files of prompts.
        samples: pictures per model and prompt set; None: as many as in the run's evaluations.
        seed: of the noise; None: that of the run's evaluations.
        epochs: which checkpoints; empty: the one whose weights a finished run has chosen, else the
            newest.
        name: of the folder below `evaluations/`; None: the names of the prompt sets.
        replace: whether one of that name that is there may be replaced.
    """

    run: Path
    rewards: Mapping[str, str]
    prompts: Sequence[str]
    samples: int | None = None
    seed: int | None = None
    epochs: Sequence[int] = ()
    name: str | None = None
    replace: bool = False


def compare(asked: Comparison) -> tuple[Path, Results]:
    """Draw, judge and write; cheap checks first, so that a mistake shows before the model loads.

    Returns:
        The folder written, and what is in its `results.json`.

    Raises:
        RunStopped: the run, a checkpoint, a prompt set, a service or the model does not fit, the
            folder is taken, or fewer than two pictures of a model could be scored.
    """
    require_alone("ddpo evaluate")
    folder = RunFolder(asked.run)
    folder.require_run()
    config = load_config(folder.config)
    plans = _plans(asked, config)
    target = _target(folder, asked, plans)
    epochs: Sequence[int | None] = sorted(set(asked.epochs)) or [folder.weights_epoch]
    trained = [checkpoints.found(folder.checkpoints, epoch) for epoch in epochs]
    sections = _sections(asked.rewards, config)
    with (
        Terminal() as terminal,
        services_of("rewards", sections, config.scoring, terminal.say) as judges,
    ):
        judges.connect()
        with _whole(target, replace=asked.replace) as partial:
            found = _found(config, judges, plans, trained, partial, terminal)
            results = _results(asked, config, judges, plans, found)
            write_json(partial / RESULTS, results.model_dump(mode="json"))
    return target, results


def _plans(asked: Comparison, config: Config) -> dict[str, EvaluationPlan]:
    """Name of each prompt set and what to draw from it.

    Raises:
        ConfigError: a prompt set cannot be read, or two have the same name.
    """
    samples = config.evaluation.samples if asked.samples is None else asked.samples
    seed = config.evaluation.seed if asked.seed is None else asked.seed
    plans: dict[str, EvaluationPlan] = {}
    for source in asked.prompts:
        known = load_prompts(source, "--prompts")
        name = _name_of(source)
        if name in plans:
            raise ConfigError(
                f"two prompt sets are called {name}: give each once, or rename the file"
            )
        plans[name] = EvaluationPlan(known, samples, seed, "--samples")
    return plans


def _name_of(source: str) -> str:
    """A set's own name, or a file's without folder and ending, fit to be a file's again."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", Path(source).stem).strip("_-") or "prompts"


def _target(folder: RunFolder, asked: Comparison, plans: Mapping[str, EvaluationPlan]) -> Path:
    """The folder to write.

    Raises:
        ConfigError: `--name` is no name.
        RunStopped: it is there already.
    """
    name = "-".join(plans) if asked.name is None else asked.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name {name!r}: use letters, digits, dot, dash and underscore")
    target = folder.evaluations / name
    if target.exists() and not asked.replace:
        raise RunStopped(
            f"the evaluation {target} is there already; replace it with --force, or give another "
            "--name"
        )
    return target


def _sections(rewards: Mapping[str, str], config: Config) -> dict[str, ServiceSection]:
    """The rewards as sections of a configuration; a key that the run knows for one is kept.

    Raises:
        ConfigError: what is given is no address.
    """
    known: dict[str, ServiceSection] = {**config.monitors, **config.rewards}
    sections = {}
    for name, urls in rewards.items():
        key = known[name].api_key_env if name in known else None
        try:
            sections[name] = ServiceSection.model_validate({"urls": urls, "api_key_env": key})
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"--reward {name}={urls}: {reason}") from None
    return sections


@contextmanager
def _whole(target: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to write into, which comes to stand at `target` when the block ends well."""
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as hidden:
        partial = Path(hidden) / "new"
        partial.mkdir()
        yield partial
        if replace and target.exists():
            os.rename(target, Path(hidden) / "old")
        os.rename(partial, target)


def _found(
    config: Config,
    judges: RewardServices,
    plans: Mapping[str, EvaluationPlan],
    trained: Sequence[Path],
    folder: Path,
    terminal: Terminal,
) -> dict[str, dict[str, dict[str, Measured]]]:
    """Prompt set → model → reward → what it says; the pictures are written into `folder`."""
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    policy = load_policy(config.model, device_named(config.run.device), config.run.seed)
    tables = policy.tables(config.sampling.steps, config.sampling.eta)
    found: dict[str, dict[str, dict[str, Measured]]] = {name: {} for name in plans}
    paths: dict[str, list[list[Path]]] = {name: [] for name in plans}
    # Nothing is loaded for the base model: adapters begin as nothing, a full UNet as it was.
    for model, checkpoint in [(BASE, None), *((path.name, path) for path in trained)]:
        if checkpoint is not None:
            policy.load_state(checkpoints.load(checkpoint).evaluated)
        for name, plan in plans.items():
            with terminal.phase(f"{model}: {name}", plan.samples) as phase:
                found[name][model], drawn = draw_and_judge(
                    policy, tables, [judges], plan, config.sampling, phase.advance, _go_on
                )
            paths[name].append(gallery.save_pictures(folder / name / model, drawn.images))
            means = ", ".join(f"{key} {said.mean:.4g}" for key, said in found[name][model].items())
            terminal.say(f"{model} on {name}, {len(drawn.images)} pictures: {means}")
    for name, plan in plans.items():
        gallery.write_grid(folder / f"{name}.png", plan.prompts, paths[name])
    return found


def _go_on() -> None:
    """There is nothing to save before Ctrl-C ends the command, so it may do so anywhere."""


def _results(
    asked: Comparison,
    config: Config,
    judges: RewardServices,
    plans: Mapping[str, EvaluationPlan],
    found: Mapping[str, Mapping[str, Mapping[str, Measured]]],
) -> Results:
    plan = next(iter(plans.values()))
    sources = dict(zip(plans, asked.prompts, strict=True))
    return Results(
        run=config.run.name,
        samples=plan.samples,
        seed=plan.seed,
        steps=config.sampling.steps,
        eta=config.sampling.eta,
        guidance_scale=config.sampling.guidance_scale,
        identities=judges.identities,
        prompt_sets={
            name: PromptSetResults(
                source=sources[name],
                prompts=plans[name].prompts,
                rewards={
                    reward: compared({model: said[reward] for model, said in by_model.items()})
                    for reward in judges.identities
                },
            )
            for name, by_model in found.items()
        },
    )
