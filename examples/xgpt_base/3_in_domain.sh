#!/usr/bin/env bash
# In-domain pre-training: the same objectives, weights 0.3 but 1 for IC, on the captions of DATASET (sections 5.1, 5.3),
# EPOCHS=10 passes. IN_DOMAIN_DATA, started from FROM → CHECKPOINTS/DATASET/in_domain/averaged.pt
. "$(dirname "$0")/settings.sh"

OBJECTIVES=${OBJECTIVES:-ic,imlm,ida,tifg}
WEIGHTS=$(sed -E 's/([a-z]+)/\1=0.3/g; s/\bic=0.3/ic=1/' <<< "$OBJECTIVES")   # ic=1,imlm=0.3,ida=0.3,tifg=0.3
start_from "${FROM:-$CHECKPOINTS/out_of_domain/averaged.pt}"
ITERATIONS=${ITERATIONS:-$(iterations "$IN_DOMAIN_DATA" "${EPOCHS:-10}")}
stage_length "$OBJECTIVES" "$ITERATIONS" 10
train xgpt_pretrain "$IN_DOMAIN_DATA" "$CHECKPOINTS/$DATASET/in_domain" "${START[@]}" \
    --objectives "$OBJECTIVES" --objective-weights "$WEIGHTS" \
    --captions-per-image 5 --lr "$(rate "$(after "${START[*]}")")" --best-checkpoint-metric "$(metric "$OBJECTIVES")" "$@"
