#!/usr/bin/env bash
# From downloads to data directories: one vocabulary, learned from TEXT, for all stages (appendix A.2).
#
#   TEXT=enwiki.txt COCO_REGIONS=cocobu COCO_SIZES=annotations COCO_CAPTIONS=dataset_coco.json \
#       bash examples/xgpt_base/0_prepare.sh
#
# Each of TEXT, CC, COCO and FLICKR30K is prepared where its variables are set. *_REGIONS is an archive of region
# features for xgpt-import-regions, *_CAPTIONS a caption file for xgpt-prepare-captions (see docs/data.md), and *_SIZES
# JSON with the photos' widths and heights, or a folder with COCO's instances_*.json, for archives without them.
set -euo pipefail

DATA=${DATA:-data}
# shellcheck source=names.sh
. "$(dirname "$0")/names.sh"
dashes DATA TEXT
SYMBOLS=${SYMBOLS:-10000}
WORKERS=${WORKERS:-$(nproc)}

# What would fail after hours of import is refused first.
for name in CC COCO FLICKR30K; do
    dashes "${name}_REGIONS" "${name}_CAPTIONS" "${name}_SIZES"
    regions=${name}_REGIONS captions=${name}_CAPTIONS sizes=${name}_SIZES
    if [ -z "${!regions-}${!captions-}${!sizes-}" ]; then continue; fi
    if [ -z "${!regions-}" ] || [ -z "${!captions-}" ]; then
        echo "error: $name needs $regions and $captions, both; one of them is not set" >&2
        exit 1
    fi
    if [ -z "${TEXT:-}" ] && [ ! -e "$DATA/vocabulary" ]; then
        echo "error: $DATA/vocabulary is not there, and TEXT, from which it is learned, is not set" >&2
        exit 1
    fi
    for variable in "$captions" ${!sizes:+"$sizes"}; do
        if [ ! -e "${!variable}" ] && [ ! -e "${!variable#*=}" ]; then   # SPLIT=FILE
            echo "error: $variable: ${!variable} is not there" >&2
            exit 1
        fi
    done
    ANY=1
done
if [ -z "${TEXT:-}${ANY-}" ]; then
    echo "error: nothing to prepare: set TEXT, or NAME_REGIONS and NAME_CAPTIONS of CC, COCO or FLICKR30K" >&2
    exit 1
fi
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

# prepare NAME REGIONS CAPTIONS SIZES SPLITS
prepare() {
    if [ -z "$2" ] || [ -e "$DATA/$1" ]; then return; fi
    if [ ! -e "$DATA/$1.regions" ]; then
        local file files=() sizes=()
        if [ -d "$4" ]; then files=("$4"/instances_*.json); elif [ -n "$4" ]; then files=("$4"); fi
        for file in "${files[@]}"; do sizes+=(--sizes "$file"); done
        xgpt-import-regions "$2" --output "$DATA/$1.regions" "${sizes[@]}" --workers "$WORKERS"
    fi
    xgpt-prepare-captions "$3" --vocabulary "$DATA/vocabulary" --regions "$DATA/$1.regions" \
        --output "$DATA/$1" --splits "$5" --missing-images "${MISSING_IMAGES:-error}" --workers "$WORKERS"
}

prepare cc "${CC_REGIONS:-}" "${CC_CAPTIONS:-}" "${CC_SIZES:-}" train,val
prepare coco "${COCO_REGIONS:-}" "${COCO_CAPTIONS:-}" "${COCO_SIZES:-}" train,val,test
prepare flickr30k "${FLICKR30K_REGIONS:-}" "${FLICKR30K_CAPTIONS:-}" "${FLICKR30K_SIZES:-}" train,val,test
