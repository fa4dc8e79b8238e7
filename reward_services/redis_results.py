"""What becomes of jobs in Redis: how outcomes are written there and read back."""

import json
from collections.abc import Mapping, Sequence

from reward_services.job_queue import JobResult, JobState, joined
from shared.errors import BY_CODE, InternalError, RewardError, ServiceUnavailable
from shared.schema import Durations, Identity, ItemResult

Fields = Mapping[bytes, bytes]
"""The hash of a job; see `lua/submit.lua`."""


def encode_items(result: JobResult) -> list[bytes]:
    """One value per picture."""
    return [one.model_dump_json(exclude_defaults=True).encode() for one in result.results]


def encode_share(result: JobResult) -> bytes:
    """Who gave the results, and where the time went; empty when nobody did."""
    if result.identity is None:
        return b""
    return json.dumps([result.identity.model_dump(), result.durations.model_dump()]).encode()


def encode_error(error: RewardError) -> bytes:
    """An error that ends a job."""
    facts = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
    return json.dumps(facts).encode()


def decode_state(job: Fields) -> JobState:
    """Where a job is."""
    if (end := job.get(b"end")) is None:
        begun = int(job.get(b"b", 0)) > 0 or job[b"left"] != job[b"n"]
        return JobState("running" if begun else "waiting")
    if end != b"done":
        return JobState("finished", error=_error(end))
    try:
        return JobState("finished", result=_result(job))
    except ServiceUnavailable as error:
        return JobState("finished", error=error)


def _result(job: Fields) -> JobResult:
    items = [ItemResult.model_validate_json(job[b"p%d" % n]) for n in range(int(job[b"n"]))]
    shares = [_share(value) for name, value in sorted(job.items()) if name.startswith(b"s")]
    return joined(items, shares)


def _share(value: bytes) -> tuple[Identity, Durations]:
    identity, durations = json.loads(value)
    return Identity.model_validate(identity), Durations.model_validate(durations)


def _error(value: bytes) -> RewardError:
    facts = json.loads(value)
    cls = BY_CODE.get(facts["code"], InternalError)
    return cls(facts["message"], retry_after=facts.get("retry_after"))


def share_name(first: int, results: Sequence[ItemResult]) -> str:
    """The field for the share that gave these results."""
    return f"s{first}:{len(results)}"
