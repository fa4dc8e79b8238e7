"""Loaded by schemathesis: how to make safetensors bodies, and what it may not conclude."""

from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection

from shared.schema import DEADLINE, SAFETENSORS
from shared.wire import encode_batch

MULTIPART = "multipart/form-data"
SHORTEST_S = 5.0


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    """As the trainer sends it; or cut off; or with bytes changed, left out or put in.

    To OpenAPI it is all just binary.
    """
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
    images = [np.full((*shape, 3), 7, np.uint8) for shape in shapes]
    prompts = draw(st.lists(st.text(max_size=8), min_size=len(images), max_size=len(images)))
    body = b"".join(encode_batch(images, prompts).chunks())
    match draw(st.sampled_from(["whole"] * 3 + ["cut", "changed"])):
        case "cut":
            return body[: draw(st.integers(0, len(body) - 1))]
        case "changed":
            at = draw(st.integers(0, len(body) - 1))
            return body[:at] + draw(st.binary(max_size=4)) + body[at + 1 :]
    return body


schemathesis.openapi.media_type(SAFETENSORS, safetensors())


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Deadlines that nothing can meet rightly get a 408 or 504, and would hide all else."""
    text: Any = (case.headers or {}).get(DEADLINE)
    try:
        if 0 < float(text) < SHORTEST_S:
            case.headers[DEADLINE] = str(SHORTEST_S)
    except (TypeError, ValueError):
        pass  # broken on purpose


@schemathesis.check
def what_breaks_the_schema_is_refused(ctx: Any, response: Any, case: Any) -> None:
    """But in a form every value is text, and 413 is a refusal too."""
    if case.media_type != MULTIPART and response.status_code != 413:
        negative_data_rejection(ctx, response, case)
