#!/usr/bin/env bash
# All stages in miniature, through the stage scripts of examples/xgpt_base: text pre-training, out-of-domain and
# in-domain image-text pre-training, fine-tuning, captions, scores, curves, and a page of images with captions.
#
#   make quickstart                            on scenes that it draws itself
#   make quickstart DATA=path/to/photos        on real photos: examples/real_photos/run.sh, with short stages
#
# DATA holds photos and their captions, in any layout of docs/layouts.md. When run again, it skips finished stages
# and resumes an interrupted training. With PREPARE_ONLY=1 it stops after preparing the data. README.md lists the
# variables.
set -euo pipefail

# shellcheck source=../xgpt_base/names.sh
. "$(dirname "$0")/../xgpt_base/names.sh"
HERE=$(cd "$(dirname "$0")" && pwd)
EXAMPLES=$(cd "$HERE/.." && pwd)
STAGES=$EXAMPLES/xgpt_base
export ARCH=${ARCH:-xgpt_demo} BATCH=${BATCH:-64} WORKERS=${WORKERS:-2} SEED=${SEED:-1}
export LOG_INTERVAL=${LOG_INTERVAL:-10} VALIDATIONS=${VALIDATIONS:-5}
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-1}
if [ -n "${1:-}" ]; then
    export TEXT_LINES=${TEXT_LINES:-100000} TEXT_ITERATIONS=${TEXT_ITERATIONS:-300}
    export IN_DOMAIN_ITERATIONS=${IN_DOMAIN_ITERATIONS:-40} FINETUNE_ITERATIONS=${FINETUNE_ITERATIONS:-600}
    export SCST_ITERATIONS=${SCST_ITERATIONS:-0} VIEWS=${VIEWS:-0}
    export REGION_DROPOUT=${REGION_DROPOUT:-0} WORD_DROPOUT=${WORD_DROPOUT:-0}   # not measured on trainings as short
    export SYMBOLS=${SYMBOLS:-2000} DROPOUT=${DROPOUT:-0.2} WORK=${WORK:-$HERE/output/$(plain "$(basename -- "$(cd -- "$1" 2> /dev/null && pwd)")")}
    exec bash "$EXAMPLES/real_photos/run.sh" "$1"   # CAPTIONS names its captions, if they are not found
fi
WORK=${WORK:-$HERE/output/scenes}      # output folder
dashes WORK
SCENES=${SCENES-}                      # options of xgpt-draw-scenes

# The recipe of examples/xgpt_base, made small.
export CHECKPOINTS=$WORK/checkpoints DATASET=captions
export TEXT_DATA=$WORK/text OUT_OF_DOMAIN_DATA=$WORK/web IN_DOMAIN_DATA=$WORK/captions
# An iteration is one update of each of a stage's objectives: two in text pre-training, four in image-text pre-training.
TEXT_LINES=${TEXT_LINES:-30000} SYMBOLS=${SYMBOLS:-1000} DROPOUT=${DROPOUT:-0.1}
TEXT_ITERATIONS=${TEXT_ITERATIONS:-75} WEB_ITERATIONS=${WEB_ITERATIONS:-40}
IN_DOMAIN_ITERATIONS=${IN_DOMAIN_ITERATIONS:-20} FINETUNE_ITERATIONS=${FINETUNE_ITERATIONS:-500}
# shellcheck disable=SC2206
SMALL=(--dropout "$DROPOUT" --label-smoothing 0.1 --log-format simple ${TRAINING-})   # TRAINING: more arguments for fairseq-train
mkdir -p "$WORK/logs"

# shellcheck source=steps.sh
. "$HERE/steps.sh"

# What was made with other settings would be taken for made with these. Lengths may change: a finished stage stays so.
DATA_SETTINGS=("SCENES: $SCENES" "SEED: $SEED" "TEXT_LINES: $TEXT_LINES" "SYMBOLS: $SYMBOLS" "VALID_LINES: ${VALID_LINES-}")
set_settings PRECISION LR OBJECTIVES AVERAGE=best VALIDATIONS=5
TRAINING_SETTINGS=("ARCH: $ARCH" "BATCH: $BATCH" "SEED: $SEED" "DROPOUT: $DROPOUT" "TRAINING: ${TRAINING-}" "${SET[@]}")
check_settings quickstart.settings "scenes regions vocabulary" "${DATA_SETTINGS[@]}"
if [ -z "${PREPARE_ONLY-}" ]; then check_settings training.settings checkpoints "${TRAINING_SETTINGS[@]}"; fi
write_settings quickstart.settings "${DATA_SETTINGS[@]}"

say "1/7 images: captions and regions"
CAPTIONS=$WORK/scenes/dataset_scenes.json
# shellcheck disable=SC2086
if [ ! -e "$WORK/scenes" ]; then xgpt-draw-scenes --output "$WORK/scenes" --seed "$SEED" --workers 2 $SCENES; fi
if [ ! -e "$WORK/regions" ]; then
    xgpt-extract-regions "$WORK/scenes/images" --output "$WORK/regions" --image-size 256
fi

say "2/7 text: COCO's captions, a vocabulary, data directories"
if [ ! -e "$WORK/text.txt" ]; then
    xgpt-caption-text --output "$WORK/text.txt" --limit "$TEXT_LINES" --exclude-nothing
fi
if [ ! -e "$WORK/vocabulary" ]; then
    xgpt-learn-bpe --input "$WORK/text.txt" "$CAPTIONS" --output "$WORK/vocabulary" \
        --symbols "$SYMBOLS" --workers 2
fi
if [ ! -e "$TEXT_DATA" ]; then
    xgpt-prepare-text --input "$WORK/text.txt" --vocabulary "$WORK/vocabulary" \
        --output "$TEXT_DATA" --valid-lines "${VALID_LINES:-500}" --workers 2
fi
SPLITS=train,val,test,unseen prepare "$IN_DOMAIN_DATA" "$WORK/vocabulary" "$WORK/regions" "$CAPTIONS"
if ((WEB_ITERATIONS > 0)); then
    SPLITS=train,val prepare "$OUT_OF_DOMAIN_DATA" "$WORK/vocabulary" "$WORK/regions" "$WORK/scenes/dataset_web.json"
fi

if [ -n "${PREPARE_ONLY-}" ]; then exit; fi
write_settings training.settings "${TRAINING_SETTINGS[@]}"

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
    caption out_of_domain "$FROM" "$IN_DOMAIN_DATA" test
fi

say "5/7 in-domain pre-training: the same on clean captions, $IN_DOMAIN_ITERATIONS iterations"
if ((IN_DOMAIN_ITERATIONS > 0)); then
    stage in_domain 3_in_domain.sh "$IN_DOMAIN_ITERATIONS" 4
    FROM=$CHECKPOINTS/captions/in_domain/averaged.pt
    caption in_domain "$FROM" "$IN_DOMAIN_DATA" test
fi

say "6/7 fine-tuning: image captioning, $FINETUNE_ITERATIONS iterations"
stage finetune 4_finetune.sh "$FINETUNE_ITERATIONS" 1
caption finetune "$CHECKPOINTS/captions/finetune/averaged.pt" "$IN_DOMAIN_DATA" test unseen

say "7/7 what came out"
python "$HERE/report.py" --results "$WORK/results" --data "$IN_DOMAIN_DATA" --subsets test,unseen --scenes "$CAPTIONS"
curves
GALLERY=()
for name in out_of_domain in_domain finetune; do
    if [ -e "$WORK/results/$name" ]; then GALLERY+=("$name=$WORK/results/$name/generate-test.txt"); fi
done
xgpt-gallery --data "$IN_DOMAIN_DATA" --captions "${GALLERY[@]}" --photos "$WORK/scenes/images" --metrics cider,bleu \
    --output "$WORK/captions.html" --overwrite

say "real photos: six, captioned by the captioner that comes with the package"
xgpt-caption "$HERE/photos" --html "$WORK/photos.html" --overwrite
echo
echo "captions: $WORK/captions.html    real photos: $WORK/photos.html    curves: $WORK/curves.png"
echo "model: $CHECKPOINTS/captions/finetune/averaged.pt    your photos: xgpt-caption PHOTOS"
