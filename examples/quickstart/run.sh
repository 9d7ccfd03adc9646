#!/usr/bin/env bash
# All stages in miniature, through the stage scripts of examples/xgpt_base: text pre-training, out-of-domain and
# in-domain image-text pre-training, fine-tuning, captions, scores, curves, and a page of images with captions.
#
#   make quickstart                            on scenes that it draws itself
#   make quickstart DATA=path/to/coco_mini     on real photos
#
# DATA holds dataset_*.json (Karpathy's format) and, for each photo, att/<id>.npz and box/<id>.npy. When run
# again, it skips finished stages and resumes an interrupted training. With PREPARE_ONLY=1 it stops after preparing the
# data. README.md lists the variables.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
STAGES=$ROOT/examples/xgpt_base
DATA=${1:-}
if [ -n "$DATA" ]; then
    CAPTIONS=$(ls "$DATA"/dataset_*.json 2>/dev/null | head -n 1 || true)
    if [ -z "$CAPTIONS" ]; then
        echo "error: $DATA holds no dataset_*.json; DATA is a folder as examples/quickstart/README.md describes" >&2
        exit 1
    fi
    NAME=$(basename "$(cd "$DATA" && pwd)")
else
    NAME=scenes
    SCENES=${SCENES-}              # options of xgpt-draw-scenes
fi
WORK=${WORK:-$HERE/output/$NAME}   # output folder

# The recipe of examples/xgpt_base, made small.
export ARCH=${ARCH:-xgpt_demo} BATCH=${BATCH:-64} WORKERS=${WORKERS:-2} SEED=${SEED:-1} PRECISION=${PRECISION-}
export CHECKPOINTS=$WORK/checkpoints DATASET=captions
export TEXT_DATA=$WORK/text OUT_OF_DOMAIN_DATA=$WORK/web IN_DOMAIN_DATA=$WORK/captions
# An iteration is one update of each of a stage's objectives: two in text pre-training, four in image-text pre-training.
if [ -n "$DATA" ]; then
    TEXT_LINES=${TEXT_LINES:-200000} SYMBOLS=${SYMBOLS:-2000} DROPOUT=${DROPOUT:-0.2}
    TEXT_ITERATIONS=${TEXT_ITERATIONS:-3000} WEB_ITERATIONS=0 IN_DOMAIN_ITERATIONS=${IN_DOMAIN_ITERATIONS:-40}
    FINETUNE_ITERATIONS=${FINETUNE_ITERATIONS:-600} SUBSETS=test
else
    TEXT_LINES=${TEXT_LINES:-30000} SYMBOLS=${SYMBOLS:-1000} DROPOUT=${DROPOUT:-0.1}
    TEXT_ITERATIONS=${TEXT_ITERATIONS:-75} WEB_ITERATIONS=${WEB_ITERATIONS:-40}
    IN_DOMAIN_ITERATIONS=${IN_DOMAIN_ITERATIONS:-20} FINETUNE_ITERATIONS=${FINETUNE_ITERATIONS:-500} SUBSETS="test unseen"
fi
export LOG_INTERVAL=10 VALIDATIONS=${VALIDATIONS:-5}
# shellcheck disable=SC2206
SMALL=(--dropout "$DROPOUT" --label-smoothing 0.1 --log-format simple ${TRAINING-})   # TRAINING: more arguments for fairseq-train
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-1}
mkdir -p "$WORK/logs"

say() { printf '\n== %s\n' "$*"; }

# stage NAME SCRIPT ITERATIONS OBJECTIVES ARGUMENT…   runs a training; log in logs/NAME.log, progress in the terminal.
stage() {
    local name=$1 script=$2 iterations=$3 objectives=$4
    shift 4
    ITERATIONS=$iterations bash "$STAGES/$script" "${SMALL[@]}" "$@" 2>&1 |
        python "$HERE/progress.py" --name "$name" --updates $((iterations * objectives)) --log "$WORK/logs/$name.log"
}

# caption NAME CHECKPOINT SUBSET…   captions and scores of a stage's checkpoint.
caption() {
    local name=$1 checkpoint=$2 subset
    shift 2
    for subset in "$@"; do
        if [ -e "$WORK/results/$name/scores-$subset.json" ]; then continue; fi
        CHECKPOINT=$checkpoint OUT=$WORK/results/$name SUBSET=$subset bash "$STAGES/5_caption.sh" \
            > "$WORK/logs/caption-$name-$subset.log" 2>&1 ||
            { tail -n 20 "$WORK/logs/caption-$name-$subset.log" >&2; exit 1; }
    done
}

say "1/7 images: captions and regions"
if [ -n "$DATA" ]; then
    if [ ! -e "$WORK/regions" ]; then
        python "$ROOT/preprocess/import_regions.py" "$DATA" --output "$WORK/regions" --sizes "$CAPTIONS"
    fi
else
    CAPTIONS=$WORK/scenes/dataset_scenes.json
    if [ ! -e "$WORK/scenes" ]; then xgpt-draw-scenes --output "$WORK/scenes" --seed "$SEED" --workers 2 $SCENES; fi
    if [ ! -e "$WORK/regions" ]; then
        python "$ROOT/preprocess/extract_regions.py" "$WORK/scenes/images" --output "$WORK/regions" --image-size 256
    fi
fi

say "2/7 text: COCO's captions, a vocabulary, data directories"
if [ ! -e "$WORK/text.txt" ]; then
    EXCLUDE=(--exclude-nothing)
    if [ -n "$DATA" ]; then EXCLUDE=(--exclude "$CAPTIONS"); fi   # no captions of photos for validation or test
    if [ -n "$DATA" ] && [ -e "$DATA/val2017_ids.txt" ]; then EXCLUDE+=(--exclude-ids "$DATA/val2017_ids.txt"); fi
    python "$ROOT/preprocess/caption_text.py" --output "$WORK/text.txt" --limit "$TEXT_LINES" "${EXCLUDE[@]}"
fi
if [ ! -e "$WORK/vocabulary" ]; then
    python "$ROOT/preprocess/learn_bpe.py" --input "$WORK/text.txt" "$CAPTIONS" --output "$WORK/vocabulary" \
        --symbols "$SYMBOLS" --workers 2
fi
if [ ! -e "$TEXT_DATA" ]; then
    python "$ROOT/preprocess/prepare_text.py" --input "$WORK/text.txt" --vocabulary "$WORK/vocabulary" \
        --output "$TEXT_DATA" --valid-lines "${VALID_LINES:-500}" --workers 2
fi
prepare() {   # prepare DATA CAPTIONS SPLITS
    if [ -e "$1" ]; then return; fi
    python "$ROOT/preprocess/prepare_captions.py" "$2" --vocabulary "$WORK/vocabulary" --regions "$WORK/regions" \
        --output "$1" --splits "$3" --workers 2
}
prepare "$IN_DOMAIN_DATA" "$CAPTIONS" "train,val,${SUBSETS// /,}"
if ((WEB_ITERATIONS > 0)); then prepare "$OUT_OF_DOMAIN_DATA" "$WORK/scenes/dataset_web.json" train,val; fi

if [ -n "${PREPARE_ONLY-}" ]; then exit; fi

say "3/7 text pre-training: MLM and MASS, $TEXT_ITERATIONS iterations"
FROM=none
if ((TEXT_ITERATIONS > 0)); then
    stage text 1_text.sh "$TEXT_ITERATIONS" 2 --dropout 0.1   # there is much text
    FROM=$CHECKPOINTS/text/averaged.pt
fi
export FROM

say "4/7 out-of-domain pre-training: IC, IMLM, IDA and TIFG on noisy captions, $WEB_ITERATIONS iterations"
if ((WEB_ITERATIONS > 0)); then
    stage out_of_domain 2_out_of_domain.sh "$WEB_ITERATIONS" 4
    FROM=$CHECKPOINTS/out_of_domain/averaged.pt
    caption out_of_domain "$FROM" test
fi

say "5/7 in-domain pre-training: the same on clean captions, $IN_DOMAIN_ITERATIONS iterations"
if ((IN_DOMAIN_ITERATIONS > 0)); then
    stage in_domain 3_in_domain.sh "$IN_DOMAIN_ITERATIONS" 4
    FROM=$CHECKPOINTS/captions/in_domain/averaged.pt
    caption in_domain "$FROM" test
fi

say "6/7 fine-tuning: image captioning, $FINETUNE_ITERATIONS iterations"
stage finetune 4_finetune.sh "$FINETUNE_ITERATIONS" 1
# shellcheck disable=SC2086
caption finetune "$CHECKPOINTS/captions/finetune/averaged.pt" $SUBSETS

say "7/7 what came out"
PHOTOS=$WORK/scenes/images FACTS=(--scenes "$CAPTIONS")
if [ -n "$DATA" ]; then PHOTOS=$DATA/images FACTS=(); fi
python "$HERE/report.py" --results "$WORK/results" --data "$IN_DOMAIN_DATA" --subsets "${SUBSETS// /,}" "${FACTS[@]}"
# shellcheck disable=SC2046
xgpt-curves --stages $(ls -tr "$WORK"/logs/{text,out_of_domain,in_domain,finetune}.log 2>/dev/null) \
    --output "$WORK/curves.png" --overwrite
GALLERY=()
for name in out_of_domain in_domain finetune; do
    if [ -e "$WORK/results/$name" ]; then GALLERY+=("$name=$WORK/results/$name/generate-test.txt"); fi
done
xgpt-gallery --data "$IN_DOMAIN_DATA" --captions "${GALLERY[@]}" --photos "$PHOTOS" --metrics cider,bleu \
    --output "$WORK/captions.html" --overwrite
echo
echo "captions: $WORK/captions.html    curves: $WORK/curves.png    model: $CHECKPOINTS/captions/finetune/averaged.pt"
