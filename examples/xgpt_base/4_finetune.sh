#!/usr/bin/env bash
# Fine-tuning: image captioning alone, 30 epochs, validated by greedy captions (sections 5.1, 5.3).
# IN_DOMAIN_DATA, started from FROM → CHECKPOINTS/DATASET/finetune/averaged.pt
. "$(dirname "$0")/settings.sh"

FROM=$(start_from "${FROM:-$CHECKPOINTS/$DATASET/in_domain/averaged.pt}")
# shellcheck disable=SC2086
train xgpt_caption "$IN_DOMAIN_DATA" "$CHECKPOINTS/$DATASET/finetune" $FROM \
    --captions-per-image 5 --lr 1e-5 --warmup-updates 4000 --max-epoch 30 \
    --eval-captions --best-checkpoint-metric cider --maximize-best-checkpoint-metric --batch-size-valid 64 "$@"
