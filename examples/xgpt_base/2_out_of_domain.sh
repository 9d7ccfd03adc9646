#!/usr/bin/env bash
# Out-of-domain pre-training: IC, IMLM, IDA and TIFG in turns, weights 1, on Conceptual Captions (section 5.1).
# OUT_OF_DOMAIN_DATA, started from FROM → CHECKPOINTS/out_of_domain/averaged.pt
. "$(dirname "$0")/settings.sh"

FROM=$(start_from "${FROM:-$CHECKPOINTS/text/averaged.pt}")
# shellcheck disable=SC2086
train xgpt_pretrain "$OUT_OF_DOMAIN_DATA" "$CHECKPOINTS/out_of_domain" $FROM \
    --objectives "${OBJECTIVES:-ic,imlm,ida,tifg}" \
    --lr 1e-4 --warmup-updates 4000 --stop-min-lr 2e-5 \
    --best-checkpoint-metric ic_nll_loss --save-interval-updates 2000 --keep-interval-updates 1 "$@"
