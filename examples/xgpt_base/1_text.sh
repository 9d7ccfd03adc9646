#!/usr/bin/env bash
# Text pre-training: MLM and MASS on plain text (section 5.4), 50 000 iterations. TEXT_DATA → CHECKPOINTS/text/averaged.pt
. "$(dirname "$0")/settings.sh"

# warm-up is one update in 25, so that the learning rate ends at a fifth of its peak: 1e-4 after 4 000 updates, 2e-5 after 100 000
stage_length mlm,mass "${ITERATIONS:-50000}" 25
train xgpt_text_pretrain "$TEXT_DATA" "$CHECKPOINTS/text" \
    --objectives mlm,mass \
    --lr "$(rate 1e-4)" --best-checkpoint-metric loss "$@"
