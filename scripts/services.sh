#!/usr/bin/env bash
# Reward services in processes of their own, for other scripts: source it in the repository's root.
#
#   serve NAME REWARD [OPTION…]   start a service; its log goes to $logs_folder/NAME.log
#   wait_for NAME                 until it answers, or exit and say why it does not
#   stop                          all of them
#
# urls, logs and processes hold what is known of each NAME.
bin=.venv/bin
export HF_HUB_OFFLINE=1
declare -A urls logs processes

free_port() { "$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

serve() {
    local name=$1 port
    shift
    port=$(free_port)
    urls[$name]="http://127.0.0.1:$port"
    logs[$name]="$logs_folder/$name.log"
    # Pictures are scored while the next ones are sampled: one thread leaves that its cores.
    OMP_NUM_THREADS=1 "$bin/reward-services" serve "$@" --port "$port" >"${logs[$name]}" 2>&1 &
    processes[$name]=$!
}

stop() { for pid in "${processes[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done; }

ready() { "$bin/python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)' "$1/readyz" 2>/dev/null; }

wait_for() {
    local name=$1
    for _ in $(seq 240); do
        if ready "${urls[$name]}"; then
            echo "Service $name: ${urls[$name]} (process ${processes[$name]}, log in ${logs[$name]})"
            return
        fi
        if ! kill -0 "${processes[$name]}" 2>/dev/null; then
            echo "The service $name stopped before it was ready. The end of ${logs[$name]}:" >&2
            tail -n 20 "${logs[$name]}" >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "The service $name was not ready within two minutes; see ${logs[$name]}." >&2
    exit 1
}
