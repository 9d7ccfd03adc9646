#!/usr/bin/env bash
# CIDEr optimisation by self-critical sequence training (SCST; Rennie et al. 2017), which the paper doesn't have:
# EPOCHS=30 passes over the images, IMAGES=64 images per update with the SAMPLES=5 captions of a beam search each
# (Cornia et al. 2020), validated by greedy captions.
# IN_DOMAIN_DATA, started from FROM → CHECKPOINTS/DATASET/scst/averaged.pt
PER_ROW=${SAMPLES:-5} BATCH=${IMAGES:-64}
. "$(dirname "$0")/settings.sh"

start_from "${FROM:-$CHECKPOINTS/$DATASET/finetune/averaged.pt}"
ITERATIONS=${ITERATIONS:-$(iterations "$IN_DOMAIN_DATA" "${EPOCHS:-30}" images)}
stage_length ic "$ITERATIONS" 10
train xgpt_caption "$IN_DOMAIN_DATA" "$CHECKPOINTS/$DATASET/scst" "${START[@]}" \
    --criterion xgpt_scst --scst-samples "$PER_ROW" --scst-candidates beam --dropout 0 --attention-dropout 0 \
    --lr "$(rate 1e-6 5e-5)" \
    --eval-captions --best-checkpoint-metric cider --maximize-best-checkpoint-metric --batch-size-valid 64 "$@"
