"""The page a person sees at `/`, and Swagger UI at `/docs`: files from this package, no CDN.

The files say nothing about the reward or its service. What they show they ask for with the key
that the person types in, so they are public where the service has API keys.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import FastAPI, Request, Response

_OWN, _SWAGGER = "reward_services.static", "fastapi_swagger.resources"
_HTML, _CSS = "text/html; charset=utf-8", "text/css; charset=utf-8"
_SCRIPT, _SVG = "text/javascript; charset=utf-8", "image/svg+xml"

FILES = {
    "/": (_OWN, "index.html", _HTML),
    "/docs": (_OWN, "docs.html", _HTML),
    "/page/icon.svg": (_OWN, "icon.svg", _SVG),
    "/page/page.css": (_OWN, "page.css", _CSS),
    "/page/page.js": (_OWN, "page.js", _SCRIPT),
    "/page/result.js": (_OWN, "result.js", _SCRIPT),
    "/page/service.js": (_OWN, "service.js", _SCRIPT),
    "/page/docs.js": (_OWN, "docs.js", _SCRIPT),
    "/page/swagger-ui.css": (_SWAGGER, "swagger-ui.css", _CSS),
    "/page/swagger-ui-bundle.js": (_SWAGGER, "swagger-ui-bundle.js", _SCRIPT),
}
"""Path → package, file, media type; an allow-list, so that no path can lead anywhere else."""

_ALLOWED = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    # The chosen picture before it is sent, and the icons inside Swagger UI's style sheet.
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}

HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {who}" for name, who in _ALLOWED.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Ask every time, and mostly get a 304: another version of the service has other files.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str


@cache
def asset(path: str) -> Asset:
    """The file behind one of `FILES`.

    Raises:
        KeyError: no such path.
    """
    package, name, media_type = FILES[path]
    content = files(package).joinpath(name).read_bytes()
    return Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def add_page(app: FastAPI) -> None:
    """Serve every one of `FILES`; none of them appears in the OpenAPI document."""
    for path in FILES:
        app.add_api_route(path, _answer, methods=["GET"], include_in_schema=False)


async def _answer(request: Request) -> Response:
    found = asset(request.scope["route"].path)
    headers = {**HEADERS, "ETag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
