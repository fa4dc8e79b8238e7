"""What a run says at the terminal, at its beginning and after every epoch."""

from collections.abc import Mapping

from trainer.bottleneck import Bottleneck
from trainer.reward_mix import shares
from trainer.run import Run
from trainer.tracking import of_reward, read_metrics

_EPOCH_SECONDS = ("seconds_sampling", "seconds_reward_wait", "seconds_update")


def announce(run: Run) -> None:
    """At the beginning: which rewards, what is trained, which sizes."""
    config = run.config
    share_of = shares(config.weights)
    for kind, services in (("reward", run.services), ("monitor", run.monitors)):
        for name, identity in services.identities.items():
            share = share_of.get(name, 1.0)
            counts = f", {100 * share:.3g} % of the weight" if share < 1 else ""
            run.terminal.say(
                f"{kind} {name}: version {identity.version}, {identity.units}, "
                f"{identity.direction}{counts}"
            )
    trained = sum(parameter.numel() for parameter in run.policy.trainable_parameters())
    run.terminal.say(
        f"training {trained:,} parameters ({config.model.train}) on {run.policy.device}"
    )
    sizes = ", ".join(f"{key} {value}" for key, value in config.sizes.as_dict().items())
    run.terminal.say(f"sizes: {sizes}")
    if run.processes.count > 1:
        run.terminal.say(f"{run.processes.count} processes; sizes are those of all together")
    if run.epoch:
        run.terminal.say(f"resumed after epoch {run.epoch}")


def tell(run: Run, record: Mapping[str, float]) -> None:
    """After an epoch: its line of `metrics.jsonl` in short."""
    total = run.config.training.epochs
    seconds = sum(record[key] for key in record if key in _EPOCH_SECONDS)
    masked = f", {record['masked']:.0f} masked" if record["masked"] else ""
    names = run.config.rewards
    means = {name: record[of_reward("reward_mean", name, names)] for name in names}
    labels = names if len(names) > 1 else ["reward"]
    told = [f"{label} {mean:.4g}" for label, mean in zip(labels, means.values(), strict=True)]
    note = f"{', '.join(told)}, {record['images_per_second']:.3g} images/s"
    if run.config.training.is_regression:
        step = f"loss {record['loss']:.3g}, effective samples {record['effective_samples']:.0f}"
    else:
        step = f"kl {record['approx_kl']:.2g}, clipped {100 * record['clip_fraction']:.0f} %"
    pace = Bottleneck.of([record], list(names))
    waited = f" (waited {100 * pace.waited:.0f} % for scores)" if pace.reward_bound else ""
    run.terminal.say(f"epoch {run.epoch}/{total}: {note}, {step}, {seconds:.1f} s{waited}{masked}")
    run.terminal.epoch_done(note)


def conclude(run: Run) -> None:
    """At the end: what the run spent its time on."""
    if records := read_metrics(run.folder.metrics):
        run.terminal.say(Bottleneck.of(records, list(run.config.rewards)).sentence())
