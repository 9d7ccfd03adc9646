#!/usr/bin/env bash
# Trains a retrieval model with four-way choices, as ViLBERT (section 6.1).
# ORIGINAL_DATA, or AUGMENTED_DATA with TRAIN_ON=augmented, started from FROM → CHECKPOINTS/retrieval/averaged.pt
BATCH=${BATCH:-64} GPU_BATCH=${GPU_BATCH:-16}   # captions; each takes four pairs through the encoder
. "$(dirname "$0")/../xgpt_base/settings.sh"

DATA=$ORIGINAL_DATA
if [ "${TRAIN_ON:-original}" = augmented ]; then DATA=$AUGMENTED_DATA; fi
start_from "$FROM"
ITERATIONS=${ITERATIONS:-$(iterations "$DATA" "${EPOCHS:-20}")}
stage_length matching "$ITERATIONS" 20
train xgpt_retrieval "$DATA" "$CHECKPOINTS/retrieval" "${START[@]}" \
    --lr "$(rate 2e-5)" --hard-negative-pool "${HARD_POOL:-100}" \
    --best-checkpoint-metric matching_accuracy --maximize-best-checkpoint-metric "$@"
