# What the stages share; sourced by them. Every variable can be set from outside:
#
#   GPUS=4 CHECKPOINTS=/big/xgpt bash examples/xgpt_base/2_out_of_domain.sh
#
# What follows a script's name goes to fairseq-train after the recipe's own arguments, and so wins over them:
#
#   bash examples/xgpt_base/2_out_of_domain.sh --max-update 50000 --tensorboard-logdir runs/cc
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
USER_DIR=${USER_DIR:-$ROOT/xgpt_fairseq}

# Data directories (0_prepare.sh makes them), and where checkpoints go, a folder a stage.
DATASET=${DATASET:-coco}                          # coco or flickr30k: stages 3 to 5
TEXT_DATA=${TEXT_DATA:-data/text}
OUT_OF_DOMAIN_DATA=${OUT_OF_DOMAIN_DATA:-data/cc}
IN_DOMAIN_DATA=${IN_DOMAIN_DATA:-data/$DATASET}
CHECKPOINTS=${CHECKPOINTS:-checkpoints}

ARCH=${ARCH:-xgpt_base}
SEED=${SEED:-1}
WORKERS=${WORKERS:-4}                             # processes that load data, for each GPU

# The total batch is the paper's whatever the number of GPUs: what one GPU holds × GPUs × accumulation.
GPUS=${GPUS:-$(python -c 'import torch; print(torch.cuda.device_count())')}   # all nodes together; 0: the CPU
BATCH=${BATCH:-512}                               # captions an update (section 5.3)
GPU_BATCH=${GPU_BATCH:-64}                        # captions that one GPU holds
PROCESSES=$((GPUS > 0 ? GPUS : 1))
if ((GPU_BATCH * PROCESSES > BATCH)); then GPU_BATCH=$((BATCH / PROCESSES)); fi
UPDATE_FREQ=$((BATCH / (GPU_BATCH * PROCESSES)))
if ((UPDATE_FREQ * GPU_BATCH * PROCESSES != BATCH)); then
    echo "error: BATCH=$BATCH is no multiple of GPU_BATCH=$GPU_BATCH × $PROCESSES processes; choose another GPU_BATCH" >&2
    exit 1
fi

# Several nodes: LAUNCH starts the processes, and says where the others are (README.md).
LAUNCH=${LAUNCH:-}
NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-0}}
if ((GPUS == 0)); then DEVICE=(--cpu ${PRECISION-}); else DEVICE=(${PRECISION---fp16} --ddp-backend legacy_ddp); fi
if ((GPUS > 0)) && [ -z "$LAUNCH" ]; then DEVICE+=(--distributed-world-size "$GPUS"); fi

# train TASK DATA SAVE_DIR ARGUMENT…   then the average of its best 4 checkpoints, SAVE_DIR/averaged.pt.
# A stage that is done is not done again; one that was interrupted goes on from its last checkpoint.
train() {
    local task=$1 data=$2 save=$3
    shift 3
    if [ -e "$save/averaged.pt" ]; then
        echo "done: $save/averaged.pt"
        return
    fi
    # $LAUNCH is a command with arguments, and split on purpose
    # shellcheck disable=SC2086
    $LAUNCH "$(command -v fairseq-train)" "$data" --user-dir "$USER_DIR" --task "$task" --arch "$ARCH" --criterion xgpt \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5 --lr-scheduler inverse_sqrt \
        --batch-size "$GPU_BATCH" --update-freq "$UPDATE_FREQ" --num-workers "$WORKERS" --seed "$SEED" \
        --save-dir "$save" --keep-best-checkpoints 4 --no-epoch-checkpoints --log-interval 100 "${DEVICE[@]}" "$@"
    if ((NODE_RANK > 0)); then return; fi   # one node averages
    xgpt-average-checkpoints --checkpoints "$save" --best 4 --allow-fewer --output "$save/averaged.pt"
}

# The average that a stage starts from: "--finetune-from-model FILE", or nothing where the stage before was left out.
start_from() {
    if [ "$1" = none ]; then return; fi
    if [ ! -e "$1" ]; then
        echo "error: $1 is not there: run the stage before, or name a checkpoint by FROM=FILE (FROM=none: from scratch)" >&2
        exit 1
    fi
    echo "--finetune-from-model $1"
}
