#!/usr/bin/env bash
# Captions of the test split, beam 2, and their scores (section 5.3). Arguments go to fairseq-generate.
# METRICS=cider,bleu names the metrics, all by default.
# CHECKPOINTS/DATASET/finetune/averaged.pt → OUT/generate-SUBSET.txt, captions-SUBSET.json, scores-SUBSET.json
. "$(dirname "$0")/settings.sh"

CHECKPOINT=${CHECKPOINT:-$CHECKPOINTS/$DATASET/finetune/averaged.pt}
OUT=${OUT:-$(dirname "$CHECKPOINT")}
SUBSET=${SUBSET:-test}
if ((GPUS == 0)); then DEVICE=(--cpu ${PRECISION-}); else DEVICE=(${PRECISION---fp16}); fi

mkdir -p "$OUT"
if ! fairseq-generate "$IN_DOMAIN_DATA" --user-dir "$USER_DIR" --task xgpt_caption --path "$CHECKPOINT" \
    --gen-subset "$SUBSET" --beam 2 --batch-size "$GPU_BATCH" --results-path "$OUT" "${DEVICE[@]}" "$@" \
    > "$OUT/generate.log" 2>&1; then
    tail -n 5 "$OUT/generate.log" >&2
    exit 1
fi
xgpt-evaluate "$OUT/generate-$SUBSET.txt" --references "$IN_DOMAIN_DATA/$SUBSET.references.json" \
    --output "$OUT/scores-$SUBSET.json" --coco-results "$OUT/captions-$SUBSET.json" --overwrite ${METRICS:+--metrics "$METRICS"}
