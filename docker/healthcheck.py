"""Exit code 0 when the service in this container is ready, for Docker's HEALTHCHECK.

Run with `python -I -S`, and with http.client alone, as it starts every few seconds.
"""

import sys
from http.client import HTTPConnection, HTTPException

PORT = 8000
TIMEOUT_S = 4.0


def main() -> int:
    """Ask /readyz; what it answers is shown by `docker inspect`."""
    connection = HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read(1000).decode(errors="replace"))
    except (OSError, HTTPException) as error:
        print(f"no answer on port {PORT}: {error!r}")
        return 1
    finally:
        connection.close()
    return int(answer.status != 200)


if __name__ == "__main__":
    sys.exit(main())
