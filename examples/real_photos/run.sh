#!/usr/bin/env bash
# From photos and their captions to a captioner: all stages of the paper on real photos, then captions, scores, a page,
# and a bundle for xgpt-caption.
#
#   bash examples/real_photos/run.sh path/to/photos                                    # photos of your own
#   WEB=path/to/coco5k bash examples/real_photos/run.sh path/to/flickr8k               # the paper's whole path
#
# Each FOLDER holds photos and captions in any layout of docs/layouts.md; several are trained on together and
# scored one by one. WEB is a folder for out-of-domain pre-training. When run again, it skips finished steps and resumes
# an interrupted training. README.md lists the variables.
set -euo pipefail

# shellcheck source=../xgpt_base/names.sh
. "$(dirname "${BASH_SOURCE[0]}")/../xgpt_base/names.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
EXAMPLES=$(cd "$HERE/.." && pwd)
STAGES=$EXAMPLES/xgpt_base
if (($# == 0)); then
    echo "usage: [WEB=FOLDER] bash examples/real_photos/run.sh FOLDER [FOLDER …]" >&2
    exit 2
fi
for folder in "$@" ${WEB:+"$WEB"}; do
    if [ ! -d "$folder" ]; then
        echo "error: $folder is not a folder" >&2
        exit 1
    fi
done
FOLDERS=() NAMES=()
for folder in "$@"; do
    folder=$(cd -- "$folder" && pwd)
    name=$(plain "${folder##*/}")
    for known in "${NAMES[@]}"; do
        if [ "$known" = "$name" ]; then
            echo "error: two folders are called $name; rename one of them" >&2
            exit 1
        fi
    done
    FOLDERS+=("$folder") NAMES+=("$name")
done
if [ -n "${WEB:-}" ]; then WEB=$(cd -- "$WEB" && pwd); fi
if [ -n "${CAPTIONS:-}" ] && ((${#FOLDERS[@]} > 1)); then
    echo "error: CAPTIONS names those of one folder; of several, give their captions names that are found" >&2
    exit 1
fi
WORK=${WORK:-$PWD/real_photos/$(IFS=+ && printf '%s' "${NAMES[*]}")}   # output folder
dashes WORK NOTES
mkdir -p "$WORK/logs"

# Photos: GRID × GRID cells and the whole photo, at IMAGE_SIZE pixels; SQUARE=1: squeezed to squares. VIEWS of each,
# cropped and mirrored, are trained on, too. All but CIDEr optimisation leaves out a part of the regions, and of the words
# that captioning reads.
GRID=${GRID:-7} IMAGE_SIZE=${IMAGE_SIZE:-384} VIEWS=${VIEWS:-1}
REGION_DROPOUT=${REGION_DROPOUT:-0.4} WORD_DROPOUT=${WORD_DROPOUT:-0.15}
# Lengths in iterations: one update of each of a stage's objectives.
export ARCH=${ARCH:-xgpt_demo} BATCH=${BATCH:-64} WORKERS=${WORKERS:-2} SEED=${SEED:-1}
export CHECKPOINTS=$WORK/checkpoints DATASET=captions VALIDATIONS=${VALIDATIONS:-5} LOG_INTERVAL=${LOG_INTERVAL:-10}
export TEXT_DATA=$WORK/text OUT_OF_DOMAIN_DATA=$WORK/web IN_DOMAIN_DATA=$WORK/captions
TEXT_ITERATIONS=${TEXT_ITERATIONS:-1000} WEB_ITERATIONS=${WEB_ITERATIONS:-100}
IN_DOMAIN_ITERATIONS=${IN_DOMAIN_ITERATIONS:-100} FINETUNE_ITERATIONS=${FINETUNE_ITERATIONS:-6500}
SCST_TYPED=${SCST_ITERATIONS:-} SCST_ITERATIONS=${SCST_ITERATIONS:-300}
TEXT_LINES=${TEXT_LINES:-} SYMBOLS=${SYMBOLS:-3000}
# shellcheck disable=SC2206
SMALL=(--dropout "${DROPOUT:-0.1}" --label-smoothing 0.1 --log-format simple ${TRAINING-})   # TRAINING: more arguments
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-1}

# shellcheck source=../quickstart/steps.sh
. "$EXAMPLES/quickstart/steps.sh"

# What was made with other settings would be taken for made with these. Lengths may change: a finished stage stays so.
SETTINGS=("folders: ${FOLDERS[*]}" "WEB: ${WEB-}" "CAPTIONS: ${CAPTIONS-}" "GRID: $GRID"
    "IMAGE_SIZE: $IMAGE_SIZE" ${SQUARE:+"SQUARE: $SQUARE"} "SYMBOLS: $SYMBOLS" "TEXT_LINES: $TEXT_LINES")
if ((VIEWS > 0)); then SETTINGS+=("VIEWS: $VIEWS"); fi   # without, as earlier versions have written it
if [ "${VALID_LINES:-1000}" != 1000 ]; then SETTINGS+=("VALID_LINES: $VALID_LINES"); fi
set_settings PRECISION LR OBJECTIVES AVERAGE=best VALIDATIONS=5 TEXT_VALIDATIONS=15 FINETUNE_VALIDATIONS=15
TRAINING_SETTINGS=("ARCH: $ARCH" "BATCH: $BATCH" "SEED: $SEED" "DROPOUT: ${DROPOUT-}" "TRAINING: ${TRAINING-}" "${SET[@]}")
# earlier versions had neither
if [ "$REGION_DROPOUT" != 0 ]; then TRAINING_SETTINGS+=("REGION_DROPOUT: $REGION_DROPOUT"); fi
if [ "$WORD_DROPOUT" != 0 ]; then TRAINING_SETTINGS+=("WORD_DROPOUT: $WORD_DROPOUT"); fi
set_settings SAMPLES=5
SCST_SETTINGS=("IMAGES: ${IMAGES-}" "${SET[@]}")
# earlier versions had one file
move_settings real_photos.settings training.settings ARCH BATCH SEED DROPOUT TRAINING
move_settings real_photos.settings scst.settings IMAGES
check_settings real_photos.settings "regions vocabulary" "${SETTINGS[@]}"
if [ -z "${PREPARE_ONLY-}" ]; then
    check_settings training.settings checkpoints "${TRAINING_SETTINGS[@]}"
    if ((SCST_ITERATIONS > 0)); then check_settings scst.settings checkpoints/captions/scst "${SCST_SETTINGS[@]}"; fi
fi

# captions_of FOLDER   sets FILES: the captions' files; and SAID: what says the splits of images, where captions do not.
captions_of() {
    local found word
    mapfile -d '' -t found < <(python "$HERE/find_captions.py" --null --captions="${CAPTIONS-}" -- "$1")
    wait $!   # for its status: where it found none, this script ends
    FILES=() SAID=()
    for word in "${found[@]}"; do
        if ((${#SAID[@]} > 0)) || [[ $word == --* ]]; then SAID+=("$word"); else FILES+=("$word"); fi
    done
}

# fit CAPTIONS…   ends this script before hours of extraction if these captions and PHOTOS do not fit.
fit() {
    if [ ! -e "$WORK/regions" ]; then xgpt-prepare-captions "$@" --check-photos "${PHOTOS[@]}"; fi
}

# differ WHAT   ends this script: folders can't be trained on together.
differ() {
    echo "error: some of the folders have $1, others have none; give their captions splits first" >&2
    exit 1
}

say "1/8 photos: captions and regions"
PHOTOS=()                              # each folder once: one of them may also be WEB
for folder in "${FOLDERS[@]}" ${WEB:+"$WEB"}; do
    for known in "${PHOTOS[@]}"; do
        if [ "$known" = "$folder" ]; then continue 2; fi
    done
    PHOTOS+=("$folder")
done
MISSED=(${MISSING:+--missing-images skip --max-missing "$MISSING"})
ALL=() ALL_SAID=()
for folder in "${FOLDERS[@]}"; do
    captions_of "$folder"
    printf '%s\n' "captions of $folder: ${FILES[*]} ${SAID[*]-}"
    lists=none held=none
    before=
    for word in "${SAID[@]}"; do
        if [ "$word" = --split-files ]; then lists=some; elif [ "$before" = --hold-out ]; then held=$word; fi
        before=$word
    done
    if ((${#ALL[@]} == 0)); then LISTS=$lists HELD=$held; fi
    # both are for all folders: --hold-out takes images of all, and where there are lists, no file's name says a split
    if [ "$held" != "$HELD" ] && { [ "$held" = none ] || [ "$HELD" = none ]; }; then differ "validation images"; fi
    if [ "$held" != "$HELD" ]; then   # one share counts for all: what another folder is scored on would be trained on
        echo "error: of $folder $held must be held out, of others $HELD: some have few photos; give their captions splits first" >&2
        exit 1
    fi
    if [ "$lists" != "$LISTS" ]; then differ "lists of the photos of each split"; fi
    if ((${#FOLDERS[@]} > 1)); then fit "${FILES[@]}" "${SAID[@]}" "${MISSED[@]}"; fi
    ALL+=("${FILES[@]}") ALL_SAID+=("${SAID[@]}")
done
fit "${ALL[@]}" "${ALL_SAID[@]}" "${MISSED[@]}"
if [ -n "${WEB:-}" ]; then
    CAPTIONS='' captions_of "$WEB"
    WEB_CAPTIONS=("${FILES[@]}" "${SAID[@]}")
    fit "${WEB_CAPTIONS[@]}" "${MISSED[@]}"
fi
write_settings real_photos.settings "${SETTINGS[@]}"   # now: what does not fit can be given otherwise

# extract STORE OPTION…   the regions of all photos
extract() {
    if [ -e "$1" ]; then return; fi
    xgpt-extract-regions "${PHOTOS[@]}" --output "$@" --grid "$GRID" --image-size "$IMAGE_SIZE" ${SQUARE:+--square}
}
extract "$WORK/regions"
STORES=()
for ((view = 1; view <= VIEWS; view++)); do
    extract "$WORK/view-$view" --view "$view"
    STORES+=("$WORK/view-$view")
done
VIEWED=()                              # of all trainings with photos
if ((VIEWS > 0)); then VIEWED=(--views "$(IFS=: && printf '%s' "${STORES[*]}")"); fi
CHANGED=("${VIEWED[@]}" --region-dropout "$REGION_DROPOUT" --ic-word-dropout "$WORD_DROPOUT")

say "2/8 text: COCO's captions, a vocabulary, data directories"
if [ ! -e "$WORK/text.txt" ]; then
    # train2014 alone, so that photos of COCO's validation set can be used to score; and nothing of one's own held-out ones
    python "$HERE/held_out_of_coco.py" --part train2014 "${ALL[@]}" "${ALL_SAID[@]}" > "$WORK/held_out.txt"
    EXCLUDE=(--exclude-nothing)
    if [ -s "$WORK/held_out.txt" ]; then EXCLUDE=(--exclude-ids "$WORK/held_out.txt"); fi
    xgpt-caption-text --output "$WORK/text.txt" --part train2014 "${EXCLUDE[@]}" \
        ${TEXT_LINES:+--limit "$TEXT_LINES"}
fi
if [ ! -e "$WORK/vocabulary" ]; then
    xgpt-learn-bpe --input "$WORK/text.txt" "${ALL[@]}" "${ALL_SAID[@]}" \
        --output "$WORK/vocabulary" --symbols "$SYMBOLS" --workers 2
fi
if [ ! -e "$TEXT_DATA" ] && ((TEXT_ITERATIONS > 0)); then
    xgpt-prepare-text --input "$WORK/text.txt" --vocabulary "$WORK/vocabulary" \
        --output "$TEXT_DATA" --valid-lines "${VALID_LINES:-1000}" --workers 2
fi
prepare "$IN_DOMAIN_DATA" "$WORK/vocabulary" "$WORK/regions" "${ALL[@]}" "${ALL_SAID[@]}" "${MISSED[@]}"
if [ -n "${WEB:-}" ]; then prepare "$OUT_OF_DOMAIN_DATA" "$WORK/vocabulary" "$WORK/regions" "${WEB_CAPTIONS[@]}" "${MISSED[@]}"; fi
SCORED=("$IN_DOMAIN_DATA")
if ((${#FOLDERS[@]} > 1)); then        # each is also scored by itself
    SCORED=()
    mkdir -p "$WORK/each"
    for number in "${!FOLDERS[@]}"; do
        captions_of "${FOLDERS[number]}"
        SCORED+=("$WORK/each/${NAMES[number]}")
        prepare "${SCORED[-1]}" "$WORK/vocabulary" "$WORK/regions" "${FILES[@]}" "${SAID[@]}" "${MISSED[@]}"
    done
fi
if [ -n "${PREPARE_ONLY-}" ]; then exit; fi

# CIDEr compares words: captions without spaces between them are scored by characters, and not optimised
JOINED=$(python "$HERE/joins_words.py" "$IN_DOMAIN_DATA" --split train)
if [ "$JOINED" = yes ] && ((SCST_ITERATIONS > 0)); then
    WHY="the captions have no spaces between words, which CIDEr optimisation compares"
    if [ -n "$SCST_TYPED" ]; then
        echo "error: SCST_ITERATIONS=$SCST_TYPED: $WHY; give none, or captions that are cut into words" \
            "(docs/data.md, Languages) and another WORK" >&2
        exit 1
    fi
    echo "SCST_ITERATIONS=0: $WHY"
    SCST_ITERATIONS=0
fi
write_settings training.settings "${TRAINING_SETTINGS[@]}"

# The learning rate of text pre-training and of fine-tuning falls to 0, which the paper's does not: short trainings end
# better so. They are validated often, so that the four checkpoints that are averaged are from their end.
FALLING=(--lr-scheduler polynomial_decay --end-learning-rate 0)

say "3/8 text pre-training: MLM and MASS, $TEXT_ITERATIONS iterations"
FROM=none
if ((TEXT_ITERATIONS > 0)); then
    VALIDATIONS=${TEXT_VALIDATIONS:-15} stage text 1_text.sh "$TEXT_ITERATIONS" 2 \
        "${FALLING[@]}" --total-num-update $((2 * TEXT_ITERATIONS))
    FROM=$CHECKPOINTS/text/averaged.pt
fi
export FROM

say "4/8 out-of-domain pre-training: IC, IMLM, IDA and TIFG${WEB:+ on $WEB}, $WEB_ITERATIONS iterations"
if [ -n "${WEB:-}" ] && ((WEB_ITERATIONS > 0)); then
    stage out_of_domain 2_out_of_domain.sh "$WEB_ITERATIONS" 4 --captions-per-image 5 "${CHANGED[@]}"
    FROM=$CHECKPOINTS/out_of_domain/averaged.pt
fi

say "5/8 in-domain pre-training: the same on ${FOLDERS[*]}, $IN_DOMAIN_ITERATIONS iterations"
if ((IN_DOMAIN_ITERATIONS > 0)); then
    stage in_domain 3_in_domain.sh "$IN_DOMAIN_ITERATIONS" 4 --captions-per-image 5 "${CHANGED[@]}"
    FROM=$CHECKPOINTS/captions/in_domain/averaged.pt
fi

say "6/8 fine-tuning: image captioning, $FINETUNE_ITERATIONS iterations"
VALIDATIONS=${FINETUNE_VALIDATIONS:-15} stage finetune 4_finetune.sh "$FINETUNE_ITERATIONS" 1 \
    "${FALLING[@]}" --total-num-update "$FINETUNE_ITERATIONS" "${CHANGED[@]}"

CAPTIONER=$CHECKPOINTS/captions/finetune/averaged.pt

say "7/8 CIDEr optimisation, which the paper doesn't have: $SCST_ITERATIONS iterations"
if ((SCST_ITERATIONS > 0)); then
    write_settings scst.settings "${SCST_SETTINGS[@]}"
    # its dropout is 0, and its reward has no label smoothing: only TRAINING's arguments
    SMALL=(--log-format simple ${TRAINING-})
    FROM=$CAPTIONER stage scst 6_scst.sh "$SCST_ITERATIONS" 1 "${VIEWED[@]}"
    CAPTIONER=$CHECKPOINTS/captions/scst/averaged.pt
fi

say "8/8 what came out"
RESULTS=()
for number in "${!SCORED[@]}"; do
    data=${SCORED[number]} name=${NAMES[number]}
    # the images that no choice was made by: those of the split test, if there are some
    subset=$(python -c 'import json, sys; print("test" if "test" in json.load(open(sys.argv[1]))["splits"] else "valid")' \
        "$data/dataset.json")
    segment=${SEGMENT-}
    if [ -z "$segment" ]; then
        JOINED=$(python "$HERE/joins_words.py" "$data" --split "$subset")
        if [ "$JOINED" = yes ]; then segment=char; fi
    fi
    SEGMENT=$segment caption "$name" "$CAPTIONER" "$data" "$subset"
    RESULTS+=("$name=$WORK/results/$name/scores-$subset.json")
    xgpt-gallery --data "$data" --split "$subset" --captions "captioner=$WORK/results/$name/generate-$subset.txt" \
        --attention "captioner=$CAPTIONER" --photos "${PHOTOS[@]}" --limit "${PAGE_IMAGES:-200}" \
        --metrics cider,bleu ${segment:+--segment "$segment"} --output "$WORK/$name.html" --overwrite
done
curves
python "$HERE/report.py" --scores "${RESULTS[@]}" ${NOTES:+--notes "$NOTES"} --card "$WORK/card.md"
xgpt-export "$CAPTIONER" --output "$WORK/bundle" --dtype float16 --card "$WORK/card.md" --overwrite
echo
echo "captions: $WORK/*.html    curves: $WORK/curves.png"
echo "caption other photos:    xgpt-caption PHOTO --path $WORK/bundle"
