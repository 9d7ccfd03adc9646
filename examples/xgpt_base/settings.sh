# What the stages share, sourced by each of them. Every variable can be set from outside:
#
#   GPUS=4 CHECKPOINTS=/big/xgpt bash examples/xgpt_base/2_out_of_domain.sh
#
# Arguments of a training's script are passed to fairseq-train after the recipe's own, and so override them:
#
#   ITERATIONS=50000 bash examples/xgpt_base/2_out_of_domain.sh --tensorboard-logdir runs/cc
set -euo pipefail

# The plugin of the Python that is first in PATH, found without importing it.
USER_DIR=${USER_DIR:-$(python -c 'from importlib.util import find_spec
print(find_spec("xgpt_fairseq").submodule_search_locations[0])')}

# Data directories (0_prepare.sh makes them), and where checkpoints go, one folder per stage.
DATASET=${DATASET:-coco}                          # coco or flickr30k: stages 3 to 6
TEXT_DATA=${TEXT_DATA:-data/text}
OUT_OF_DOMAIN_DATA=${OUT_OF_DOMAIN_DATA:-data/cc}
IN_DOMAIN_DATA=${IN_DOMAIN_DATA:-data/$DATASET}
CHECKPOINTS=${CHECKPOINTS:-checkpoints}
# shellcheck source=names.sh
. "$(dirname "${BASH_SOURCE[0]}")/names.sh"
dashes TEXT_DATA OUT_OF_DOMAIN_DATA IN_DOMAIN_DATA CHECKPOINTS FROM CHECKPOINT OUT ORIGINAL_DATA AUGMENTED_DATA

ARCH=${ARCH:-xgpt_base}
SEED=${SEED:-1}
WORKERS=${WORKERS:-4}                             # data loader processes per GPU

# The total batch is the paper's for any number of GPUs: captions per GPU × GPUs × accumulation.
FOUND=0 MEMORY=0 HALF=--fp16                      # GPUs of this machine, the first one's MiB and half precision
if [ -z "${GPUS:-}" ] || { ((GPUS > 0)) && [ -z "${GPU_BATCH:+${PRECISION+x}}" ]; }; then
    read -r FOUND MEMORY HALF < <(python -c 'import torch
n = torch.cuda.device_count()
bfloat16 = n and torch.cuda.is_bf16_supported(including_emulation=False)
print(n, torch.cuda.get_device_properties(0).total_memory >> 20 if n else 0, "--bf16" if bfloat16 else "--fp16")')
fi
GPUS=${GPUS:-$FOUND}                              # all nodes together; 0: the CPU
BATCH=${BATCH:-512}                               # captions per update (section 5.3); 6_scst.sh: images
PER_ROW=${PER_ROW:-1}                             # captions that a GPU holds for each of them
PROCESSES=$((GPUS > 0 ? GPUS : 1))
if ((BATCH % PROCESSES != 0)); then
    echo "error: BATCH=$BATCH is no multiple of GPUS=$GPUS; choose GPUS (1, 2, 4 …) or BATCH (IMAGES in 6_scst.sh)" >&2
    exit 1
fi
if [ -z "${GPU_BATCH:-}" ]; then                  # captions per GPU; 6_scst.sh: images, as BATCH
    # xgpt_base needs up to 46 MB per caption with 100 regions (IMLM, TIFG), and 2 GB for weights and optimizer
    MOST=$((MEMORY > 0 ? (MEMORY - 3000) / 48 / PER_ROW : 64))
    GPU_BATCH=$((BATCH / PROCESSES))
    for ((PARTS = 2; GPU_BATCH > MOST && PARTS <= BATCH; PARTS++)); do
        if ((BATCH % (PROCESSES * PARTS) == 0)); then GPU_BATCH=$((BATCH / PROCESSES / PARTS)); fi
    done
fi
if ((GPU_BATCH * PROCESSES > BATCH)); then GPU_BATCH=$((BATCH / PROCESSES)); fi
UPDATE_FREQ=$((GPU_BATCH > 0 ? BATCH / (GPU_BATCH * PROCESSES) : 0))
if ((UPDATE_FREQ == 0 || UPDATE_FREQ * GPU_BATCH * PROCESSES != BATCH)); then
    echo "error: BATCH=$BATCH is no multiple of GPU_BATCH=$GPU_BATCH × $PROCESSES processes; choose another GPU_BATCH" >&2
    exit 1
fi

# Several nodes: LAUNCH starts the processes, and says where the others are (README.md).
LAUNCH=${LAUNCH:-}
NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-0}}
if ((GPUS == 0)); then
    DEVICE=(--cpu ${PRECISION-})
else
    # with LAUNCH, too: fairseq takes the number from the launcher or from SLURM, but does not look there where it is 1, its
    # default on a node with one GPU
    DEVICE=(${PRECISION-$HALF} --ddp-backend legacy_ddp --distributed-world-size "$GPUS")
fi

# iterations DATA EPOCHS [images]   the number of iterations in EPOCHS passes over the training captions of DATA, or over
# its images.
iterations() {
    if [ ! -e "$1/dataset.json" ]; then
        echo "error: $1 is no data directory: it has no dataset.json (prepare it with 0_prepare.sh)" >&2
        exit 1
    fi
    python -c 'import json, sys
data, epochs, batch, of = sys.argv[1:]
count = json.load(open(f"{data}/dataset.json", encoding="utf-8"))["splits"]["train"][of]
print(-(-count * int(epochs) // int(batch)))' "$1" "$2" "$BATCH" "${3:-captions}"
}

# The length of a stage is given in iterations. An iteration is one update of each objective, so all rows of a table
# with the same ITERATIONS see the same pairs equally often.
#
# SCHEDULE: of the script's arguments, which it passes on: an iteration of `joint` is one update.
SCHEDULE=turns BEFORE=
for word in "$@"; do
    case $word in
        --objectives | --objectives=*)
            echo "error: $word: the length of a stage goes by its objectives; set OBJECTIVES (stages 2 and 3)" >&2
            exit 1 ;;
        --objective-schedule=*) SCHEDULE=${word#*=} ;;
    esac
    if [ "$BEFORE" = --objective-schedule ]; then SCHEDULE=$word; fi
    BEFORE=$word
done
# stage_length OBJECTIVES ITERATIONS WARMUP_PART   sets LENGTH, for train: ITERATIONS × objectives updates, of which one in
# WARMUP_PART warms up (at most 4 000, but for 25, by which the learning rate ends at a fifth of its peak), and VALIDATIONS
# validations with a checkpoint each.
stage_length() {
    local commas=${1//[^,]/} part=$3
    local objectives=$((${#commas} + 1))
    if [ "$SCHEDULE" = joint ]; then objectives=1; fi
    local updates=$(($2 * objectives))
    if [ "$ARCH" = xgpt_demo ]; then part=10; fi   # its learning rate is ten times the paper's
    local warmup=$((updates / part))
    if ((part < 25 && warmup > 4000)); then warmup=4000; fi
    local every=$(((${2} + VALIDATIONS - 1) / VALIDATIONS * objectives))
    LENGTH=(--max-update "$updates" --warmup-updates $((warmup > 0 ? warmup : 1))
            --save-interval-updates "$every" --validate-interval-updates "$every" --keep-interval-updates "$KEPT"
            --save-interval 1000000 --validate-interval 1000000)   # never by epochs
}
VALIDATIONS=${VALIDATIONS:-25}
case ${AVERAGE:-best} in
    best) AVERAGED=--best KEPT=1 ;;
    last) AVERAGED=--last-updates KEPT=4 ;;
    *) echo "error: AVERAGE=$AVERAGE: best or last are known" >&2; exit 1 ;;
esac

# rate BASE [DEMO]   the learning rate: LR, or BASE; for xgpt_demo, a third as wide and as deep, DEMO, by default 1e-3, as
# in all of the paper's stages.
rate() {
    if [ -n "${LR:-}" ]; then echo "$LR"; elif [ "$ARCH" = xgpt_demo ]; then echo "${2:-1e-3}"; else echo "$1"; fi
}

# metric OBJECTIVES   the metric that selects the best checkpoints: the loss of captioning, or without it, of the rest.
metric() {
    case ,$1, in *,ic,*) echo ic_nll_loss ;; *) echo loss ;; esac
}

# train TASK DATA SAVE_DIR ARGUMENT…   then the average of its best 4 checkpoints, or its last 4, SAVE_DIR/averaged.pt.
# A finished stage is skipped; an interrupted one is resumed from its last checkpoint.
train() {
    local task=$1 data=$2 save=$3
    shift 3
    if [ -e "$save/averaged.pt" ]; then
        echo "done: $save/averaged.pt"
        return
    fi
    # $LAUNCH is a command with arguments, so it is split on purpose
    # shellcheck disable=SC2086
    $LAUNCH "$(command -v fairseq-train)" "$data" --user-dir "$USER_DIR" --task "$task" --arch "$ARCH" --criterion xgpt \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5 --lr-scheduler inverse_sqrt "${LENGTH[@]}" \
        --batch-size "$GPU_BATCH" --update-freq "$UPDATE_FREQ" --num-workers "$WORKERS" --seed "$SEED" \
        --save-dir "$save" --keep-best-checkpoints 4 --no-epoch-checkpoints --log-interval "$LOG_INTERVAL" "${DEVICE[@]}" "$@"
    if ((NODE_RANK > 0)); then return; fi   # one node averages
    xgpt-average-checkpoints --checkpoints "$save" "$AVERAGED" 4 --allow-fewer --validate \
        --output "$save/averaged.pt"
}
LOG_INTERVAL=${LOG_INTERVAL:-100}                 # updates

# after START   the learning rate in domain: the paper's 1e-5 after pre-training; from scratch (Table 3), pre-training's.
after() {
    if [ -n "$1" ]; then echo 1e-5; else echo 1e-4; fi
}

# start_from FILE   sets START, for train: "--finetune-from-model FILE", or nothing if FILE is "none".
start_from() {
    START=()
    if [ "$1" = none ]; then return; fi
    if [ ! -e "$1" ]; then
        echo "error: $1 is not there: run the stage before, or name a checkpoint by FROM=FILE (FROM=none: from scratch)" >&2
        exit 1
    fi
    START=(--finetune-from-model "$1")
}
