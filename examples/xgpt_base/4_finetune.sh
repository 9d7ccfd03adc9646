#!/usr/bin/env bash
# Fine-tuning: image captioning alone, EPOCHS=30 passes, validated by greedy captions (sections 5.1, 5.3).
# IN_DOMAIN_DATA, started from FROM → CHECKPOINTS/DATASET/finetune/averaged.pt
. "$(dirname "$0")/settings.sh"

start_from "${FROM:-$CHECKPOINTS/$DATASET/in_domain/averaged.pt}"
ITERATIONS=${ITERATIONS:-$(iterations "$IN_DOMAIN_DATA" "${EPOCHS:-30}")}
stage_length ic "$ITERATIONS" 10
train xgpt_caption "$IN_DOMAIN_DATA" "$CHECKPOINTS/$DATASET/finetune" "${START[@]}" \
    --captions-per-image 5 --lr "$(rate "$(after "${START[*]}")")" \
    --eval-captions --best-checkpoint-metric cider --maximize-best-checkpoint-metric --batch-size-valid 64 "$@"
