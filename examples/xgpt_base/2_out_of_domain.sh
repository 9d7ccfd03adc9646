#!/usr/bin/env bash
# Out-of-domain pre-training: IC, IMLM, IDA and TIFG, all with weight 1, on Conceptual Captions (section 5.1), 25 000
# iterations. OUT_OF_DOMAIN_DATA, started from FROM → CHECKPOINTS/out_of_domain/averaged.pt
. "$(dirname "$0")/settings.sh"

OBJECTIVES=${OBJECTIVES:-ic,imlm,ida,tifg}
start_from "${FROM:-$CHECKPOINTS/text/averaged.pt}"
stage_length "$OBJECTIVES" "${ITERATIONS:-25000}" 25   # as 1_text.sh
train xgpt_pretrain "$OUT_OF_DOMAIN_DATA" "$CHECKPOINTS/out_of_domain" "${START[@]}" \
    --objectives "$OBJECTIVES" \
    --lr "$(rate 1e-4)" --best-checkpoint-metric "$(metric "$OBJECTIVES")" "$@"
