#!/usr/bin/env bash
# The whole line on a small data set: regions, vocabulary, data, training, averaging, captions, scores.
#
#   make quickstart DATA=path/to/coco_mini
#
# DATA holds dataset_*.json (Karpathy's format) and, for each photo, att/<id>.npz and box/<id>.npy.
# Started again, it skips the stages that are done and goes on with a training that was interrupted.
set -euo pipefail

DATA=${1:-}
if [ -z "$DATA" ]; then
    echo "error: name the data: make quickstart DATA=path/to/coco_mini (see examples/quickstart/README.md)" >&2
    exit 1
fi
CAPTIONS=$(ls "$DATA"/dataset_*.json 2>/dev/null | head -n 1 || true)
if [ -z "$CAPTIONS" ]; then
    echo "error: $DATA holds no dataset_*.json; DATA is a folder as examples/quickstart/README.md describes" >&2
    exit 1
fi

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
WORK=${WORK:-$HERE/output/$(basename "$(cd "$DATA" && pwd)")}   # what is written
ARCH=${ARCH:-xgpt_demo}
SYMBOLS=${SYMBOLS:-1000}          # BPE merges
EPOCHS=${EPOCHS:-24}
BATCH=${BATCH:-64}                # captions an update
LEARNING_RATE=${LEARNING_RATE:-1e-3}
SEED=${SEED:-1}
CPU=${CPU-$(python -c 'import torch; print("" if torch.cuda.is_available() else "--cpu")')}
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-1}
mkdir -p "$WORK"

stage() { printf '\n== %s\n' "$*"; }

stage "1/6 regions"
if [ -e "$WORK/regions" ]; then echo "done: $WORK/regions"; else
    python "$ROOT/preprocess/import_regions.py" "$DATA" --output "$WORK/regions" --sizes "$CAPTIONS"
fi

stage "2/6 vocabulary and data directory"
if [ -e "$WORK/vocabulary/vocabulary.json" ]; then echo "done: $WORK/vocabulary"; else
    python "$ROOT/preprocess/learn_bpe.py" --input "$CAPTIONS" --output "$WORK/vocabulary" --symbols "$SYMBOLS"
fi
if [ -e "$WORK/data" ]; then echo "done: $WORK/data"; else
    python "$ROOT/preprocess/prepare_captions.py" "$CAPTIONS" --vocabulary "$WORK/vocabulary" \
        --regions "$WORK/regions" --output "$WORK/data"
fi

stage "3/6 training $ARCH on image captioning, $EPOCHS epochs"
if [ -e "$WORK/averaged.pt" ]; then echo "done: $WORK/averaged.pt"; else
    fairseq-train "$WORK/data" --user-dir "$ROOT/xgpt_fairseq" --task xgpt_caption --arch "$ARCH" --criterion xgpt \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5 \
        --lr "$LEARNING_RATE" --lr-scheduler inverse_sqrt --warmup-updates 200 \
        --batch-size "$BATCH" --captions-per-image 5 --max-epoch "$EPOCHS" --seed "$SEED" \
        --label-smoothing 0.1 --dropout 0.2 --eval-captions --batch-size-valid 64 \
        --best-checkpoint-metric cider --maximize-best-checkpoint-metric --keep-best-checkpoints 4 \
        --keep-last-epochs 10 --save-dir "$WORK/checkpoints" \
        --log-interval 20 --log-format simple --log-file "$WORK/train.log" --tensorboard-logdir "$WORK/tensorboard" \
        $CPU 2> "$WORK/train.stderr" | awk '/\| (train_inner|valid|train) \|/ { print; fflush() }' \
        || { tail -n 20 "$WORK/train.stderr" >&2; exit 1; }

    stage "4/6 average of the 4 best checkpoints"
    xgpt-average-checkpoints --checkpoints "$WORK/checkpoints" --best 4 --allow-fewer --output "$WORK/averaged.pt"
fi

stage "5/6 captions of the test photos, beam 2"
fairseq-generate "$WORK/data" --user-dir "$ROOT/xgpt_fairseq" --task xgpt_caption --path "$WORK/averaged.pt" \
    --gen-subset test --beam 2 --batch-size 32 --results-path "$WORK" $CPU > "$WORK/generate.log" 2>&1 \
    || { tail -n 20 "$WORK/generate.log" >&2; exit 1; }
grep '^D-' "$WORK/generate-test.txt" | head -n 5 | cut -f 3

stage "6/6 scores"
xgpt-evaluate "$WORK/generate-test.txt" --references "$WORK/data/test.references.json" \
    --output "$WORK/scores.json" --coco-results "$WORK/captions.json" --overwrite
echo
echo "captions: $WORK/captions.json    scores: $WORK/scores.json    model: $WORK/averaged.pt"
