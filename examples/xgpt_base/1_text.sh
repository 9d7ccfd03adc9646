#!/usr/bin/env bash
# Text pre-training: MLM and MASS in turns on plain text (section 5.4). TEXT_DATA → CHECKPOINTS/text/averaged.pt
. "$(dirname "$0")/settings.sh"

train xgpt_text_pretrain "$TEXT_DATA" "$CHECKPOINTS/text" \
    --objectives mlm,mass \
    --lr 1e-4 --warmup-updates 4000 --stop-min-lr 2e-5 \
    --best-checkpoint-metric loss --save-interval-updates 2000 --keep-interval-updates 1 "$@"
