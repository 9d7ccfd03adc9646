#!/usr/bin/env bash
# From downloads to data directories: one vocabulary, learned from TEXT, for all stages (appendix A.2).
#
#   TEXT=enwiki.txt CC_REGIONS=… CC_CAPTIONS=… COCO_REGIONS=… COCO_CAPTIONS=dataset_coco.json bash examples/xgpt_base/0_prepare.sh
#
# Each of TEXT, CC, COCO and FLICKR30K is prepared where its variables are set. *_REGIONS is an archive of region
# features for xgpt-import-regions, *_CAPTIONS a caption file for xgpt-prepare-captions (see docs/data.md).
set -euo pipefail

DATA=${DATA:-data}
# shellcheck source=names.sh
. "$(dirname "$0")/names.sh"
dashes DATA TEXT CC_REGIONS CC_CAPTIONS COCO_REGIONS COCO_CAPTIONS FLICKR30K_REGIONS FLICKR30K_CAPTIONS
SYMBOLS=${SYMBOLS:-10000}
WORKERS=${WORKERS:-$(nproc)}
mkdir -p "$DATA"

if [ -n "${TEXT:-}" ]; then
    if [ ! -e "$DATA/vocabulary" ]; then
        xgpt-learn-bpe --input "$TEXT" --output "$DATA/vocabulary" \
            --symbols "$SYMBOLS" --workers "$WORKERS"
    fi
    if [ ! -e "$DATA/text" ]; then
        xgpt-prepare-text --input "$TEXT" --vocabulary "$DATA/vocabulary" \
            --output "$DATA/text" --valid-lines "${VALID_LINES:-2000}" --workers "$WORKERS"
    fi
fi

# prepare NAME REGIONS CAPTIONS SPLITS
prepare() {
    if [ -z "$2" ] || [ -e "$DATA/$1" ]; then return; fi
    if [ ! -e "$DATA/$1.regions" ]; then
        local sizes=()
        if [[ $3 == *.json ]]; then sizes=(--sizes "$3"); fi   # other formats have no photo sizes
        xgpt-import-regions "$2" --output "$DATA/$1.regions" "${sizes[@]}" --workers "$WORKERS"
    fi
    xgpt-prepare-captions "$3" --vocabulary "$DATA/vocabulary" --regions "$DATA/$1.regions" \
        --output "$DATA/$1" --splits "$4" --missing-images "${MISSING_IMAGES:-error}" --workers "$WORKERS"
}

prepare cc "${CC_REGIONS:-}" "${CC_CAPTIONS:-}" train,val
prepare coco "${COCO_REGIONS:-}" "${COCO_CAPTIONS:-}" train,val,test
prepare flickr30k "${FLICKR30K_REGIONS:-}" "${FLICKR30K_CAPTIONS:-}" train,val,test
