#!/usr/bin/env bash
# Data for the tables on two CPU cores: Flickr8k in domain, 5 000 photos of COCO out of domain, and COCO's captions as text.
#
#   FLICKR8K=path/to/flickr8k COCO5K=path/to/coco5k bash examples/ablations/flickr8k.sh
#
# Each folder holds images/ and dataset_*.json (Karpathy's format). Flickr8k's published validation photos are the test
# split here; 200 training photos are held out for validation. Text and pairs of COCO are train2014's alone. What is
# there is not made again; README.md has the commands that follow.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
WORK=${WORK:-$PWD/ablations/flickr8k}
GRID=${GRID:-4}              # GRID × GRID cells and the whole photo: 17 regions
mkdir -p "$WORK"

# hold_out CAPTIONS OUTPUT   200 training photos become val; the published val becomes test.
hold_out() {
    python - "$1" "$2" <<'PYTHON'
import json, random, sys
from pathlib import Path

source = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
held_out = random.Random(1).sample([image for image in source["images"] if image["split"] == "train"], 200)
for image in source["images"]:
    if image["split"] == "val":
        image["split"] = "test"
for image in held_out:
    image["split"] = "val"
Path(sys.argv[2]).write_text(json.dumps(source), encoding="utf-8")
PYTHON
}

for name in flickr8k coco5k; do
    folder=FLICKR8K
    if [ "$name" = coco5k ]; then folder=COCO5K; fi
    if [ ! -e "$WORK/$name.regions" ]; then
        python "$ROOT/preprocess/extract_regions.py" "${!folder}/images" --output "$WORK/$name.regions" \
            --grid "$GRID" --image-size 224
    fi
done
if [ ! -e "$WORK/dataset.json" ]; then hold_out "$FLICKR8K"/dataset_*.json "$WORK/dataset.json"; fi
if [ ! -e "$WORK/text.txt" ]; then
    python "$ROOT/preprocess/caption_text.py" --output "$WORK/text.txt" --part train2014 --exclude-nothing --limit 200000
fi
if [ ! -e "$WORK/vocabulary" ]; then
    python "$ROOT/preprocess/learn_bpe.py" --input "$WORK/text.txt" "$WORK/dataset.json" --output "$WORK/vocabulary" \
        --symbols 3000 --workers 2
fi
if [ ! -e "$WORK/text" ]; then
    python "$ROOT/preprocess/prepare_text.py" --input "$WORK/text.txt" --vocabulary "$WORK/vocabulary" \
        --output "$WORK/text" --valid-lines 1000 --workers 2
fi
if [ ! -e "$WORK/captions" ]; then
    python "$ROOT/preprocess/prepare_captions.py" "$WORK/dataset.json" --vocabulary "$WORK/vocabulary" \
        --regions "$WORK/flickr8k.regions" --output "$WORK/captions" --splits train,val,test --workers 2
fi
if [ ! -e "$WORK/web" ]; then
    python "$ROOT/preprocess/prepare_captions.py" "$COCO5K"/dataset_*.json --vocabulary "$WORK/vocabulary" \
        --regions "$WORK/coco5k.regions" --output "$WORK/web" --splits train,val --workers 2
fi
# Text pre-training (examples/xgpt_base/1_text.sh), which every row of tables 2 and 6 starts from.
ARCH=xgpt_demo BATCH=64 ITERATIONS=${TEXT_ITERATIONS:-1500} WORKERS=2 TEXT_DATA=$WORK/text CHECKPOINTS=$WORK/checkpoints \
    LOG_INTERVAL=100 bash "$ROOT/examples/xgpt_base/1_text.sh" --log-format simple
