#!/usr/bin/env bash
# Recall of a retrieval model over the pool SPLITS of ORIGINAL_DATA. Arguments go to xgpt-evaluate.
# CHECKPOINT → OUT/scores-test.json
. "$(dirname "$0")/../xgpt_base/settings.sh"

if ((GPUS == 0)); then DEVICE=(--device cpu ${PRECISION-}); else DEVICE=(${PRECISION-$HALF}); fi
xgpt-evaluate --retrieval --path "$CHECKPOINT" --data "$ORIGINAL_DATA" --splits "${SPLITS:-test}" \
    --output "$OUT/scores-test.json" --overwrite "${DEVICE[@]}" "$@"
