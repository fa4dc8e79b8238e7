"""A run while it trains: its live parts, and how they become a checkpoint and come back."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer import checkpoints
from trainer.advantages import PerPromptTracker
from trainer.base_policy import BasePolicy
from trainer.checkpoints import Checkpoint, RunState
from trainer.config import Config
from trainer.configured_rewards import services_of
from trainer.ddim import DDIMTables
from trainer.devices import device_named
from trainer.interrupts import Interrupts
from trainer.launch import launched
from trainer.loading import load_policy
from trainer.optimizer import make_optimizer
from trainer.policy import Policy
from trainer.processes import Processes
from trainer.prompts import PromptSampler, load_prompts
from trainer.resumption import checkpoint_of
from trainer.rewards import RewardServices
from trainer.run_folder import RunFolder
from trainer.run_records import open_records
from trainer.sections import EMASection
from trainer.stops import ProcessLost, RunStopped
from trainer.terminal import Terminal
from trainer.tracking import MetricsLog
from trainer.weight_average import WeightAverage


@dataclass(frozen=True)
class Moment:
    """Everything of a checkpoint but the weights and the optimiser."""

    state: RunState
    generators: dict[str, Tensor]


@dataclass
class Run:
    """The live parts of a run. `open_run` makes one.

    Attributes:
        processes: who train it together; all have the same weights, statistics and generators.
        trackers: the latest rewards of each prompt, for each reward on its own.
        epoch: epochs finished.
        base: the model before training, where `kl.coefficient` asks for it.
        average: of the trained weights, where `ema.decay` asks for it.
        shuffling: order of samples and timesteps in the update. The noise of the pictures needs
            no generator that lasts: each picture has its own, see `sampling.noise_seed`.
        metrics: in the main process alone.
        best_epoch: epoch of the best evaluation so far, whose checkpoint is kept; None without a
            guard.
        reward_queries, masked, skipped_steps, skipped_in_a_row: see `RunState`.
        seconds_before: seconds counted by the processes that this one resumed from.
        started: monotonic time at which this process began to count.
    """

    config: Config
    processes: Processes
    folder: RunFolder
    terminal: Terminal
    interrupts: Interrupts
    services: RewardServices
    monitors: RewardServices
    policy: Policy
    tables: DDIMTables
    base: BasePolicy | None
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    trackers: dict[str, PerPromptTracker]
    prompts: PromptSampler
    shuffling: torch.Generator
    metrics: MetricsLog | None
    epoch: int = 0
    best_epoch: int | None = None
    reward_queries: int = 0
    masked: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation so far, without set-up."""
        return self.seconds_before + time.monotonic() - self.started

    def check(self) -> None:
        """Call where the run can be left.

        Raises:
            RunStopped: a signal has arrived, or another process has been stopped.
        """
        self.interrupts.check()
        self.processes.check()

    def maximizes(self, reward: str) -> bool:
        """Whether more of a reward is better."""
        return self.services.identities[reward].direction == "maximize"

    def moment(self) -> Moment:
        """Where the run stands now; valid for as long as the weights do not change."""
        state = RunState(
            epoch=self.epoch,
            reward_queries=self.reward_queries,
            masked=self.masked,
            skipped_steps=self.skipped_steps,
            skipped_in_a_row=self.skipped_in_a_row,
            seconds=self.seconds,
            metrics_bytes=self.metrics.length() if self.metrics else 0,
            prompts=self.prompts.state_dict(),
            trackers={name: each.state_dict() for name, each in self.trackers.items()},
            identities=self.services.identities | self.monitors.identities,
            config=self.config.model_dump(mode="json"),
            average_updates=self.average.updates if self.average else 0,
            processes=self.processes.count,
        )
        return Moment(state, {"shuffling": self.shuffling.get_state()})

    def save(self, moment: Moment) -> None:
        """Write a checkpoint of a moment since which the weights have not changed.

        The main process does; the others have nothing to do.
        """
        if not self.processes.is_main:
            return
        checkpoint = Checkpoint(
            state=moment.state,
            weights=self.policy.state(),
            optimizer=checkpoints.optimizer_tensors(self.optimizer),
            generators=moment.generators,
            average=self.average.state() if self.average else {},
        )
        keep = self.config.checkpoints.keep
        checkpoints.save(self.folder.checkpoints, checkpoint, keep, self.best_epoch)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the policy has the averaged weights if the run keeps any; do not save there."""
        with self.average.in_place() if self.average else nullcontext():
            yield

    def saved(self, moment: Moment) -> bool:
        """True when the checkpoint of this moment is on the disk; all processes must ask."""

        def newest_is_of_it() -> bool:
            newest = checkpoints.newest(self.folder.checkpoints)
            return newest is not None and newest.name == checkpoints.name(moment.state.epoch)

        return bool(self.processes.from_main(newest_is_of_it))

    @contextmanager
    def saved_when_stopped(self, moment: Moment) -> Iterator[None]:
        """Leave a checkpoint of `moment` behind when the block is stopped.

        The block must not change the weights. What stops it stops every process there.
        """
        try:
            yield
        except RunStopped as stop:
            # The others wait: the launcher ends them all once the first of them has failed.
            lost = isinstance(stop, ProcessLost)
            with nullcontext() if lost else self.processes.together():
                self.save(moment)
            self.terminal.say(
                f"checkpoint after epoch {moment.state.epoch} written to {self.folder.checkpoints}"
            )
            raise

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go to where the checkpoint was taken; the metrics file is cut by its own class."""
        state = checkpoint.state
        self.policy.load_state(checkpoint.weights)
        checkpoints.restore_optimizer(self.optimizer, checkpoint.optimizer)
        if self.average:
            self.average.load_state(checkpoint.average, state.average_updates)
        self.shuffling.set_state(checkpoint.generators["shuffling"])
        self.prompts.load_state_dict(state.prompts)
        for name, tracker in self.trackers.items():
            tracker.load_state_dict(state.trackers[name])
        self.epoch = state.epoch
        self.reward_queries = state.reward_queries
        self.masked = state.masked
        self.skipped_steps = state.skipped_steps
        self.skipped_in_a_row = state.skipped_in_a_row
        self.seconds_before = state.seconds
        if state.processes != self.processes.count:
            self.terminal.say(
                f"the run goes on in another number of processes ({self.processes.count}, before "
                f"{state.processes}): the same up to rounding, which may add up"
            )


@contextmanager
def open_run(config: Config, *, resume: bool) -> Iterator[Run]:
    """Set a run up, cheap checks first, so that a mistake shows before the model is loaded.

    Args:
        config: what to run.
        resume: go on from the newest checkpoint of the run folder.

    Raises:
        RunStopped: the folder, the configuration, a service or the model does not fit.
    """
    folder = RunFolder(config.folder)
    with ExitStack() as stack:
        processes = stack.enter_context(launched(config.model.dtype, config.scoring.max_outage_s))
        processes.require_same("the configuration", config.flat())
        with processes.together():
            folder.refuse_reuse(resume)
            checkpoint = checkpoint_of(folder, config) if resume else None
            state = checkpoint.state if checkpoint else None
            all_prompts = load_prompts(config.prompts.source)
            # Told before the model loads.
            load_prompts(config.evaluation_source, "evaluation.prompts")
            done, silent = state.epoch if state else 0, not processes.is_main
            terminal = stack.enter_context(Terminal(config.training.epochs, done, silent=silent))
            config.require_reward()
            patience = (config.scoring, terminal.say, processes.count)
            services = stack.enter_context(services_of("rewards", config.rewards, *patience))
            monitors = stack.enter_context(services_of("monitors", config.monitors, *patience))
            for each in (services, monitors):
                each.connect(state.identities if state else None)
            device = device_named(config.run.device, processes)
        processes.require_same("the version of the rewards", _versions(services, monitors))
        processes.require_same("the epoch to resume after", done)
        processes.use_device(device)
        with processes.together():
            if config.run.threads is not None:
                torch.set_num_threads(config.run.threads)
            policy = load_policy(config.model, device, config.run.seed)
            tables = policy.tables(config.sampling.steps, config.sampling.eta)
        metrics = None
        with processes.together():
            if processes.is_main:
                stack.callback(os.close, folder.claim(config.to_toml()))
                terminal.keep_log(folder.log)
                metrics = open_records(config, folder, state, stack)
        run = Run(
            config=config,
            processes=processes,
            folder=folder,
            terminal=terminal,
            interrupts=stack.enter_context(Interrupts(launched=processes.count > 1, silent=silent)),
            services=services,
            monitors=monitors,
            policy=policy,
            tables=tables,
            # Before `restore`, so that a resumed run has the same base.
            base=BasePolicy(policy) if config.kl.coefficient else None,
            optimizer=make_optimizer(policy, config.training),
            average=_average(policy, config.ema),
            trackers={
                name: PerPromptTracker(config.advantages.buffer_size, config.advantages.min_count)
                for name in config.rewards
            },
            prompts=PromptSampler(all_prompts, config.run.seed),
            shuffling=torch.Generator().manual_seed(config.run.seed),
            metrics=metrics,
        )
        if checkpoint:
            run.restore(checkpoint)
        run.started = time.monotonic()
        yield run


def _versions(*services: RewardServices) -> dict[str, str]:
    return {name: known.version for each in services for name, known in each.identities.items()}


def _average(policy: Policy, ema: EMASection) -> WeightAverage | None:
    if not ema.decay:
        return None
    return WeightAverage(policy.named_trained(), ema.decay, warmup=ema.warmup)
