#!/usr/bin/env bash
# Data for the tables on two CPU cores: Flickr8k in domain, 5 000 photos of COCO out of domain, and COCO's captions as text.
#
#   FLICKR8K=path/to/flickr8k COCO5K=path/to/coco5k bash examples/ablations/flickr8k.sh
#
# Each folder holds images/ and dataset_*.json (Karpathy's format). Flickr8k's published validation photos are the test
# split here; 200 training photos are held out for validation. Text and pairs of COCO are from train2014 only.
# Existing results are not recomputed, and refused with other settings; README.md has the commands that follow. Sizes:
# GRID, HELD_OUT, TEXT_LINES, VALID_LINES, SYMBOLS, TEXT_ITERATIONS; TRAINING: more arguments of the training.
set -euo pipefail

# shellcheck source=../xgpt_base/names.sh
. "$(dirname "${BASH_SOURCE[0]}")/../xgpt_base/names.sh"
EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=${WORK:-$PWD/ablations/flickr8k}
dashes WORK FLICKR8K COCO5K
: "${FLICKR8K:?names the folder of Flickr8k: images/ and dataset_*.json}"
: "${COCO5K:?names the folder of COCO photos: images/ and dataset_*.json}"
GRID=${GRID:-4}              # GRID × GRID cells and the whole photo: 17 regions
HELD_OUT=${HELD_OUT:-200} TEXT_LINES=${TEXT_LINES:-200000} SYMBOLS=${SYMBOLS:-3000} VALID_LINES=${VALID_LINES:-1000}
# shellcheck source=../quickstart/steps.sh
. "$EXAMPLES/quickstart/steps.sh"
mkdir -p "$WORK"

# hold_out CAPTIONS OUTPUT   HELD_OUT training photos become val; the published val becomes test.
hold_out() {
    python - "$1" "$2" "$HELD_OUT" <<'PYTHON'
import json, random, sys
from pathlib import Path

source = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
held_out = random.Random(1).sample([image for image in source["images"] if image["split"] == "train"], int(sys.argv[3]))
for image in source["images"]:
    if image["split"] == "val":
        image["split"] = "test"
for image in held_out:
    image["split"] = "val"
aside = Path(sys.argv[2] + ".partial")
aside.write_text(json.dumps(source), encoding="utf-8")
aside.rename(sys.argv[2])
PYTHON
}

# captions_of FOLDER   sets CAPTIONS: its one file of captions
captions_of() {
    local files=("$1"/dataset_*.json)
    if ((${#files[@]} > 1)) || [ ! -e "${files[0]}" ]; then
        echo "error: $1 is to hold one file dataset_*.json: ${files[*]}" >&2
        exit 1
    fi
    CAPTIONS=${files[0]}
}

# regions PHOTOS STORE
regions() {
    if [ -e "$2" ]; then return; fi
    xgpt-extract-regions "$1" --output "$2" --grid "$GRID" --image-size 224
}

captions_of "$COCO5K" && WEB_CAPTIONS=$CAPTIONS
captions_of "$FLICKR8K"
# Lengths may change: a finished training stays so.
SETTINGS=("FLICKR8K: $(cd -- "$FLICKR8K" && pwd)" "COCO5K: $(cd -- "$COCO5K" && pwd)" "GRID: $GRID" "HELD_OUT: $HELD_OUT"
    "TEXT_LINES: $TEXT_LINES" "VALID_LINES: $VALID_LINES" "SYMBOLS: $SYMBOLS")
set_settings PRECISION LR AVERAGE=best VALIDATIONS=25
TRAINING_SETTINGS=("SEED: ${SEED:-1}" "TRAINING: ${TRAINING-}" "${SET[@]}")
move_settings flickr8k.settings training.settings SEED TRAINING   # earlier versions had one file
check_settings flickr8k.settings "flickr8k.regions vocabulary" "${SETTINGS[@]}"
check_settings training.settings checkpoints "${TRAINING_SETTINGS[@]}"
write_settings flickr8k.settings "${SETTINGS[@]}"
regions "$FLICKR8K/images" "$WORK/flickr8k.regions"
regions "$COCO5K/images" "$WORK/coco5k.regions"
if [ ! -e "$WORK/dataset.json" ]; then hold_out "$CAPTIONS" "$WORK/dataset.json"; fi
if [ ! -e "$WORK/text.txt" ]; then
    xgpt-caption-text --output "$WORK/text.txt" --part train2014 --exclude-nothing \
        --limit "$TEXT_LINES"
fi
if [ ! -e "$WORK/vocabulary" ]; then
    xgpt-learn-bpe --input "$WORK/text.txt" "$WORK/dataset.json" --output "$WORK/vocabulary" \
        --symbols "$SYMBOLS" --workers 2
fi
if [ ! -e "$WORK/text" ]; then
    xgpt-prepare-text --input "$WORK/text.txt" --vocabulary "$WORK/vocabulary" \
        --output "$WORK/text" --valid-lines "$VALID_LINES" --workers 2
fi
if [ ! -e "$WORK/captions" ]; then
    xgpt-prepare-captions "$WORK/dataset.json" --vocabulary "$WORK/vocabulary" \
        --regions "$WORK/flickr8k.regions" --output "$WORK/captions" --splits train,val,test --workers 2
fi
if [ ! -e "$WORK/web" ]; then
    xgpt-prepare-captions "$WEB_CAPTIONS" --vocabulary "$WORK/vocabulary" \
        --regions "$WORK/coco5k.regions" --output "$WORK/web" --splits train,val --workers 2
fi
write_settings training.settings "${TRAINING_SETTINGS[@]}"
# Text pre-training (examples/xgpt_base/1_text.sh), which every row of tables 2 and 6 starts from.
ARCH=xgpt_demo BATCH=64 ITERATIONS=${TEXT_ITERATIONS:-1500} WORKERS=2 TEXT_DATA=$WORK/text CHECKPOINTS=$WORK/checkpoints \
    LOG_INTERVAL=100 bash "$EXAMPLES/xgpt_base/1_text.sh" --log-format simple ${TRAINING-}
