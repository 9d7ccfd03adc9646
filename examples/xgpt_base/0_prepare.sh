#!/usr/bin/env bash
# From downloads to data directories: one vocabulary, learned from TEXT, for all stages (appendix A.2).
#
#   TEXT=enwiki.txt COCO_REGIONS=cocobu COCO_SIZES=annotations COCO_CAPTIONS=dataset_coco.json \
#       bash examples/xgpt_base/0_prepare.sh
#
# Each of TEXT, CC, COCO and FLICKR30K is prepared where its variables are set. *_REGIONS is an archive of region
# features for xgpt-import-regions, *_CAPTIONS a caption file for xgpt-prepare-captions (see docs/data.md), or several, with
# its options; and *_SIZES JSON with the photos' widths and heights, or a folder with COCO's instances_*.json, for archives
# without them. What is prepared already is not looked at again.
set -euo pipefail

if (($# > 0)); then
    echo "error: $1: 0_prepare.sh takes no arguments, but variables before its name (TEXT=FILE bash …/0_prepare.sh)" >&2
    exit 1
fi
DATA=${DATA:-data}
# shellcheck source=names.sh
. "$(dirname "$0")/names.sh"
dashes DATA TEXT
SYMBOLS=${SYMBOLS:-10000}
WORKERS=${WORKERS:-$(nproc)}

# What would fail after hours of import is refused first.
MISSING_IMAGES=${MISSING_IMAGES:-error}
OPEN=()
for name in CC COCO FLICKR30K; do
    dashes "${name}_REGIONS" "${name}_SIZES"
    regions=${name}_REGIONS captions=${name}_CAPTIONS sizes=${name}_SIZES
    if [ -z "${!regions-}${!captions-}${!sizes-}" ]; then continue; fi
    if [ -z "${!regions-}" ] || [ -z "${!captions-}" ]; then
        echo "error: $name needs $regions and $captions, both; one of them is not set" >&2
        exit 1
    fi
    ANY=1
    if [ -e "$DATA/${name,,}" ]; then continue; fi
    if [ -z "${TEXT:-}" ] && [ ! -e "$DATA/vocabulary" ]; then
        echo "error: $DATA/vocabulary is not there, and TEXT, from which it is learned, is not set" >&2
        exit 1
    fi
    if [ -n "${!sizes-}" ] && [ ! -e "$DATA/${name,,}.regions" ] && [ ! -e "${!sizes}" ]; then
        echo "error: $sizes: ${!sizes} is not there" >&2
        exit 1
    fi
    OPEN+=("$name")
done
for name in "${OPEN[@]}"; do
    captions=${name}_CAPTIONS splits=train,val,test
    if [ "$name" = CC ]; then splits=train,val; fi
    mapfile -d '' -t "${name}_WORDS" < <(
        python "$(dirname "$0")/check_captions.py" -- "$captions" "${!captions}" "$splits" "$MISSING_IMAGES")
    wait $!   # for its status
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

# prepare NAME REGIONS SIZES WORD…   WORDs are arguments of xgpt-prepare-captions.
prepare() {
    local name=$1 regions=$2 given=$3
    shift 3
    if [ -z "$regions" ] || [ -e "$DATA/$name" ]; then return; fi
    if [ ! -e "$DATA/$name.regions" ]; then
        local file files=() sizes=()
        if [ -d "$given" ]; then files=("$given"/instances_*.json); elif [ -n "$given" ]; then files=("$given"); fi
        for file in "${files[@]}"; do sizes+=(--sizes "$file"); done
        xgpt-import-regions "$regions" --output "$DATA/$name.regions" "${sizes[@]}" --workers "$WORKERS"
    fi
    # WORDs come after what they may give otherwise
    xgpt-prepare-captions --workers "$WORKERS" "$@" --vocabulary "$DATA/vocabulary" --regions "$DATA/$name.regions" \
        --output "$DATA/$name"
}

prepare cc "${CC_REGIONS:-}" "${CC_SIZES:-}" "${CC_WORDS[@]}"
prepare coco "${COCO_REGIONS:-}" "${COCO_SIZES:-}" "${COCO_WORDS[@]}"
prepare flickr30k "${FLICKR30K_REGIONS:-}" "${FLICKR30K_SIZES:-}" "${FLICKR30K_WORDS[@]}"
