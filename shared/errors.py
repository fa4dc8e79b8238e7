"""Every error of the wire. Each class that a service may answer is one HTTP status and one code.

RewardError
├── RequestError                    400 bad_request           the request must change
│   ├── MalformedRequest            400 malformed_request     the body cannot be read
│   ├── Unauthorized                401 unauthorized          API key missing or wrong
│   ├── NotFound                    404 not_found
│   ├── MethodNotAllowed            405 method_not_allowed
│   ├── IdempotencyConflict         409 idempotency_conflict  same key, other body
│   ├── BodyTooLarge                413 body_too_large
│   ├── TooManyItems                413 too_many_items
│   ├── UnsupportedMediaType        415 unsupported_media_type
│   └── InvalidRequest              422 invalid_request       readable, but counts or types are off
├── ServiceUnavailable              503 unavailable           trying again later may help
│   ├── UploadTimeout               408 upload_timeout        the body came in too slowly
│   ├── QueueFull                   429 queue_full
│   ├── BadGateway                  502 bad_gateway           a proxy did not reach the service
│   ├── NotReady                    503 not_ready             still loading
│   ├── Draining                    503 draining              shutting down
│   ├── BrokerUnavailable           503 broker_unavailable    the job queue is away
│   ├── DeadlineExceeded            504 deadline_exceeded     no score in time (service or client)
│   └── ServiceUnreachable          client only               no connection, or it broke
├── InternalError                   500 internal              a bug in the service
├── ContractError                   client only               the service cannot be trusted
│   ├── ProtocolError               its answer is nonsense
│   └── IdentityMismatch            it is not the reward that was expected
├── InvalidServiceUrl               client only
└── ImageError                      one picture; becomes its item error inside a 200
    ├── ImageUnreadable             image_unreadable          no picture, or a broken one
    ├── ImageTooLarge               image_too_large           too many pixels
    └── ImageUnsupported            image_unsupported         format or kind of pixel not taken
"""

from typing import ClassVar


class RewardError(Exception):
    """Base of all. `message` is one sentence that says what to change.

    Attributes:
        status: HTTP status, 0 for errors that exist on the client alone.
        code: stable machine code.
        retryable: whether the same request may succeed later.
        retry_after: seconds that the service asked to wait, None when it did not say.
        request_id: request that failed, "" when unknown.
    """

    status: ClassVar[int] = 0
    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after: float | None = None, request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id


class RequestError(RewardError):
    """The request is at fault. Repeating it does not help."""

    status = 400
    code = "bad_request"


class MalformedRequest(RequestError):
    """The body cannot be read: broken JSON, header, base64 or length."""

    status = 400
    code = "malformed_request"


class Unauthorized(RequestError):
    """The API key is missing or unknown."""

    status = 401
    code = "unauthorized"


class NotFound(RequestError):
    """No such route or job."""

    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The route exists, but not for this HTTP method."""

    status = 405
    code = "method_not_allowed"
    allowed: tuple[str, ...] = ()
    """Methods that it takes; set by the service, for the header `Allow`."""


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another body."""

    status = 409
    code = "idempotency_conflict"


class BodyTooLarge(RequestError):
    """The body has more bytes than the service takes."""

    status = 413
    code = "body_too_large"


class TooManyItems(RequestError):
    """The request has more pictures than the service takes."""

    status = 413
    code = "too_many_items"


class UnsupportedMediaType(RequestError):
    """The Content-Type or Content-Encoding is not one of those taken."""

    status = 415
    code = "unsupported_media_type"


class InvalidRequest(RequestError):
    """The body can be read, but its counts, shapes or dtypes do not fit together."""

    status = 422
    code = "invalid_request"


class ServiceUnavailable(RewardError):
    """The service cannot answer now. The same request may succeed later."""

    status = 503
    code = "unavailable"
    retryable = True


class UploadTimeout(ServiceUnavailable):
    """The body did not arrive in time."""

    status = 408
    code = "upload_timeout"


class QueueFull(ServiceUnavailable):
    """The queue has no room for these items."""

    status = 429
    code = "queue_full"


class BadGateway(ServiceUnavailable):
    """A proxy in between did not reach the service."""

    status = 502
    code = "bad_gateway"


class NotReady(ServiceUnavailable):
    """The service is still loading."""

    status = 503
    code = "not_ready"


class Draining(ServiceUnavailable):
    """The service is shutting down and takes no new work."""

    status = 503
    code = "draining"


class BrokerUnavailable(ServiceUnavailable):
    """The job queue behind the service is away."""

    status = 503
    code = "broker_unavailable"


class DeadlineExceeded(ServiceUnavailable):
    """No score within the deadline of the service or of the client."""

    status = 504
    code = "deadline_exceeded"


class ServiceUnreachable(ServiceUnavailable):
    """No connection to the service, or it broke before the answer was complete."""

    status = 0
    code = "unreachable"


class InternalError(RewardError):
    """The service failed in a way that it did not foresee."""

    status = 500
    code = "internal"


class ContractError(RewardError):
    """The service answered, but its answer cannot be used."""

    code = "contract"


class ProtocolError(ContractError):
    """The answer breaks the wire contract: wrong length, no number, no JSON."""

    code = "protocol"


class IdentityMismatch(ContractError):
    """The reward that answered is not the one that was expected."""

    code = "identity_mismatch"


class InvalidServiceUrl(RewardError):
    """The address of a reward service cannot be used."""

    code = "invalid_service_url"


class ImageError(RewardError):
    """One picture cannot be scored. Its neighbours can."""

    code = "image"


class ImageUnreadable(ImageError):
    """The bytes are no picture of an accepted format, or are cut off or broken."""

    code = "image_unreadable"


class ImageTooLarge(ImageError):
    """The picture has more pixels than allowed."""

    code = "image_too_large"


class ImageUnsupported(ImageError):
    """The picture is whole, but of a format or pixel type that is not taken."""

    code = "image_unsupported"


def _descend(root: type[RewardError]) -> list[type[RewardError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _descend(child))]


BY_CODE: dict[str, type[RewardError]] = {
    cls.code: cls for cls in _descend(RewardError) if cls.status >= 400
}
"""Classes that may arrive as the body of a 4xx or 5xx answer, by their machine code."""

BY_STATUS: dict[int, type[RewardError]] = {
    400: MalformedRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    405: MethodNotAllowed,
    408: UploadTimeout,
    409: IdempotencyConflict,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
    422: InvalidRequest,
    429: QueueFull,
    500: InternalError,
    502: BadGateway,
    503: ServiceUnavailable,
    504: DeadlineExceeded,
}
"""What to make of an answer without a readable body, such as a proxy's HTML page."""


def error_from_answer(
    status: int,
    code: str,
    message: str,
    *,
    retry_after: float | None = None,
    request_id: str = "",
) -> RewardError:
    """The error that a 4xx or 5xx answer stands for.

    The code decides when it is known and agrees with the status; otherwise the status alone does,
    so that neither a proxy nor a newer service is misread.
    """
    cls = BY_CODE.get(code)
    if cls is None or cls.status != status:
        fallback = RequestError if 400 <= status < 500 else InternalError
        cls = BY_STATUS.get(status, fallback)
    return cls(message, retry_after=retry_after, request_id=request_id)
