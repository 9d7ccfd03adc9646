#!/usr/bin/env bash
# Captions of the test split, beam 2, and their scores (section 5.3). Arguments go to fairseq-generate.
# METRICS=cider,bleu selects metrics (default: all); SEGMENT=char is for languages without spaces between words. Scores
# the average of the four best checkpoints and the single best one, since the paper does not say which of the two its
# scores are of; or CHECKPOINT alone.
# CHECKPOINTS/DATASET/finetune/averaged.pt → OUT/generate-SUBSET.txt, captions-SUBSET.json, scores-SUBSET.json
# CHECKPOINTS/DATASET/finetune/checkpoint_best.pt → OUT/single/…
. "$(dirname "$0")/settings.sh"

FOLDER=$CHECKPOINTS/$DATASET/finetune
SINGLE=
if [ -z "${CHECKPOINT:-}" ]; then SINGLE=$FOLDER/checkpoint_best.pt; fi
CHECKPOINT=${CHECKPOINT:-$FOLDER/averaged.pt}
OUT=${OUT:-$(dirname "$CHECKPOINT")}
SUBSET=${SUBSET:-test}
# fairseq-generate's half precision is float16, whatever the training's was
if ((GPUS == 0)); then DEVICE=(--cpu ${PRECISION-}); elif [ -n "${PRECISION-x}" ]; then DEVICE=(--fp16); else DEVICE=(); fi

# caption CHECKPOINT OUT ARGUMENT…   and adds it to GENERATED and WRITTEN, for xgpt-evaluate
GENERATED=() WRITTEN=()
caption() {
    local checkpoint=$1 out=$2
    shift 2
    mkdir -p "$out"
    if ! fairseq-generate "$IN_DOMAIN_DATA" --user-dir "$USER_DIR" --task xgpt_caption --path "$checkpoint" \
        --gen-subset "$SUBSET" --beam 2 --batch-size "$GPU_BATCH" --results-path "$out" "${DEVICE[@]}" "$@" \
        > "$out/generate.log" 2>&1; then
        tail -n 5 "$out/generate.log" >&2
        exit 1
    fi
    GENERATED+=("$out/generate-$SUBSET.txt")
    WRITTEN+=(--output "$out/scores-$SUBSET.json" --coco-results "$out/captions-$SUBSET.json")
}

caption "$CHECKPOINT" "$OUT" "$@"
if [ -n "$SINGLE" ] && [ -e "$SINGLE" ]; then caption "$SINGLE" "$OUT/single" "$@"; fi
xgpt-evaluate "${GENERATED[@]}" --references "$IN_DOMAIN_DATA/$SUBSET.references.json" \
    "${WRITTEN[@]}" --overwrite ${METRICS:+--metrics "$METRICS"} ${SEGMENT:+--segment "$SEGMENT"}
