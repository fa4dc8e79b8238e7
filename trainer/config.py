"""The configuration of a run, and where its values come from.

From strongest to weakest: `--set section.key=value`, the environment
(`DDPO_SECTION__KEY=value`), the recipe (TOML), the default. An unknown key in any of them is an
error. Constructing `Config` directly reads none of these sources.
"""

import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from trainer.recipe_files import read_recipe
from trainer.sections import (
    AdvantagesSection,
    CheckpointsSection,
    EMASection,
    EvaluationSection,
    GuardSection,
    KLSection,
    ModelSection,
    PromptsSection,
    RewardSection,
    RunSection,
    RWRSection,
    SamplingSection,
    ScoringSection,
    ServiceSection,
    TrackingSection,
    TrainingSection,
)
from trainer.service_tables import long_form, with_urls
from trainer.setting_faults import described, suggestion
from trainer.sizes import Sizes
from trainer.stops import ConfigError
from trainer.tables import flatten, merge, parse_override, to_toml

ENV_PREFIX = "DDPO_"


class Config(BaseSettings):
    """Everything a run depends on. Frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    model: ModelSection
    """The text-to-image model and which of its weights are trained."""
    run: RunSection = RunSection()
    """Where the run is kept and what it runs on."""
    prompts: PromptsSection = PromptsSection()
    """What the model is asked to draw."""
    sampling: SamplingSection = SamplingSection()
    """How training pictures are made."""
    training: TrainingSection = TrainingSection()
    """The update."""
    rwr: RWRSection = RWRSection()
    """Reward-weighted regression, used when `training.algorithm` is `rwr` or `rwr_sparse`."""
    advantages: AdvantagesSection = AdvantagesSection()
    """How rewards are normalised."""
    kl: KLSection = KLSection()
    """Keeping the policy near the model it began as; not for RWR."""
    ema: EMASection = EMASection()
    """An exponential moving average of the trained weights, for evaluations and as the result."""
    rewards: dict[str, RewardSection] = {}
    """Reward name → its service and weight. With several, each is normalised on its own and their
    weighted mean is what is trained on."""
    monitors: dict[str, ServiceSection] = {}
    """Name → service of a reward that judges the evaluation pictures and is never trained on."""
    scoring: ScoringSection = ScoringSection()
    """How rewards are asked for, and what happens when one does not come."""
    evaluation: EvaluationSection = EvaluationSection()
    """The same prompts and noise, before and after training."""
    guard: GuardSection = GuardSection()
    """What is done when the monitors fall."""
    checkpoints: CheckpointsSection = CheckpointsSection()
    """What is kept to resume from."""
    tracking: TrackingSection = TrackingSection()
    """Records beside `metrics.jsonl`."""

    @model_validator(mode="after")
    def _one_name_one_service(self) -> "Config":
        for name in self.rewards.keys() & self.monitors.keys():
            raise ValueError(
                f"{name} is both a reward and a monitor: a reward is recorded anyway, so leave the "
                "monitor out"
            )
        return self

    @model_validator(mode="after")
    def _several_rewards_have_no_unit(self) -> "Config":
        if len(self.rewards) > 1:
            self.rwr.refuse_units(self.training.algorithm, list(self.rewards))
        return self

    @model_validator(mode="after")
    def _kl_needs_a_policy_gradient(self) -> "Config":
        if self.kl.coefficient and self.training.is_regression:
            raise ValueError(
                f"kl.coefficient is {self.kl.coefficient:g}, but {self.training.algorithm} trains "
                "on pictures and has no steps whose divergence could count: set kl.coefficient to "
                "0, or training.algorithm to ddpo_is or ddpo_sf"
            )
        return self

    @model_validator(mode="after")
    def _guard_has_something_to_go_by(self) -> "Config":
        missing = [] if self.monitors else ["a monitor (--monitor NAME=URL)"]
        missing += [] if self.evaluation.every else ["evaluations (evaluation.every=1)"]
        if self.guard.action != "off" and missing:
            raise ValueError(
                f"guard.action is {self.guard.action} and goes by monitors in evaluations during "
                f"training: add {' and '.join(missing)}, or set guard.action to off"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: a checkpoint's configuration must not change with the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @cached_property
    def sizes(self) -> Sizes:
        """The derived sizes.

        Raises:
            ConfigError: a batch size does not divide.
        """
        return Sizes.derive(self.sampling, self.training, self.rwr, self.evaluation)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.run.dir) / self.run.name

    def require_reward(self) -> None:
        """Nothing where there is something to train on.

        Raises:
            ConfigError: no reward is named.
        """
        if not self.rewards:
            raise ConfigError(
                "no reward is named: add --reward NAME=URL, "
                "for example --reward jpeg_compressibility=http://localhost:8001"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Reward name → weight."""
        return {name: section.weight for name, section in self.rewards.items()}

    @property
    def evaluation_source(self) -> str:
        """Where the evaluation prompts come from."""
        return self.evaluation.prompts or self.prompts.source

    def flat(self) -> dict[str, Any]:
        """`section.key` → JSON value, unset (None) ones included."""
        return flatten(self.model_dump(mode="json"))

    def to_toml(self) -> str:
        """This configuration as a recipe that gives it back."""
        return to_toml(self.model_dump(mode="json"))

    def differences(self, other: "Config") -> list[str]:
        """One line per setting that differs, as `section.key: <here> → <other>`."""
        mine, theirs = self.flat(), other.flat()
        return [
            f"{key}: {json.dumps(mine.get(key))} → {json.dumps(theirs.get(key))}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def load_config(
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    rewards: Mapping[str, str] | None = None,
    monitors: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of a run from all its sources, with its sizes checked.

    Args:
        recipe: name of a shipped recipe, or path of a TOML file.
        overrides: `section.key=value`, the strongest source. Lists and tables are written as in
            TOML: `training.betas=[0.9, 0.99]`.
        rewards: reward name → URL, or several with commas; replaces every reward of the other
            sources, but keeps the other settings of a reward of that name, such as its weight.
        monitors: the same for rewards that are recorded and never trained on.

    Raises:
        ConfigError: one line that names the setting and what to change.
    """
    values: dict[str, Any] = {} if recipe is None else long_form(read_recipe(recipe))
    merge(values, long_form(_environment()))
    changes: dict[str, Any] = {}
    for override in overrides:
        merge(changes, long_form(parse_override(override)))
    merge(values, changes)
    for section, given in (("rewards", rewards), ("monitors", monitors)):
        if given:
            values[section] = with_urls(section, given, values, changes)
    try:
        config = Config(**values)
    except ValidationError as error:
        raise ConfigError(described(error, Config.model_fields)) from None
    config.sizes  # noqa: B018  (computing them is the check)
    return config


def _environment() -> dict[str, Any]:
    """Values of the DDPO_* variables; a misspelt one is an error, never ignored."""
    for variable in sorted(os.environ):
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        section = variable[len(ENV_PREFIX) :].split("__")[0].lower()
        if section not in Config.model_fields:
            raise ConfigError(
                f"environment variable {variable}: no section {section!r}"
                f"{suggestion(section, Config.model_fields)}; "
                f"the form is {ENV_PREFIX}SECTION__KEY (two underscores)"
            )
    try:
        return EnvSettingsSource(Config)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from None
