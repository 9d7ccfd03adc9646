#!/usr/bin/env bash
# Recall of a model of retrieval over the pool SPLITS of ORIGINAL_DATA. Arguments, and RECALL's, go to xgpt-evaluate.
# CHECKPOINT → OUT/scores-test.json
. "$(dirname "$0")/../xgpt_base/settings.sh"

if ((GPUS == 0)); then DEVICE=(--device cpu); else DEVICE=(${PRECISION---fp16}); fi
# shellcheck disable=SC2086
xgpt-evaluate --retrieval --path "$CHECKPOINT" --data "$ORIGINAL_DATA" --splits "${SPLITS:-test}" \
    --output "$OUT/scores-test.json" --overwrite "${DEVICE[@]}" ${RECALL-} "$@"
