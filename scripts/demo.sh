#!/usr/bin/env bash
# The whole loop on this machine: a reward service in its own process, and DDPO training against it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=.venv/bin
run=runs/demo
log=runs/demo-service.log

mkdir -p runs
if [ -e "$run" ]; then
    kept="$run-$(date +%Y%m%d-%H%M%S)"
    mv "$run" "$kept"
    echo "The run that was in $run is kept as $kept."
fi

port=$("$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url="http://127.0.0.1:$port"
"$bin/reward-services" serve jpeg_compressibility --port "$port" >"$log" 2>&1 &
service=$!
trap 'kill "$service" 2>/dev/null && wait "$service" || true' EXIT

ready() { "$bin/python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)' "$url/readyz" 2>/dev/null; }
for _ in $(seq 120); do
    ready && break
    if ! kill -0 "$service" 2>/dev/null; then
        echo "The reward service stopped before it was ready. The end of $log:" >&2
        tail -n 20 "$log" >&2
        exit 1
    fi
    sleep 0.5
done
ready || { echo "The reward service was not ready within a minute; see $log." >&2; exit 1; }
echo "Reward service: $url (process $service, log in $log)"

status=0
"$bin/ddpo" train --recipe emoji_compressibility --reward "jpeg_compressibility=$url" \
    --name demo "$@" || status=$?

echo
echo "The reward service answered $(grep -c '"path": "/score"' "$log" || true) score requests, the last of them ($log):"
grep '"path": "/score"' "$log" | tail -n 3 || tail -n 3 "$log"
if [ "$status" -ne 0 ]; then
    echo "The training stopped with exit code $status." >&2
    exit "$status"
fi
echo
echo "Open $run/report.html: the reward curve, and the same pictures before and after training."
