# Steps that the examples share, sourced by quickstart/run.sh, real_photos/run.sh and ablations/flickr8k.sh. Needs WORK; the
# trainings need EXAMPLES, STAGES and SMALL, their arguments.

say() { printf '\n== %s\n' "$*"; }

# check_settings FILE "MADE…" LINE…   ends the script where WORK was made with other settings than these lines, by FILE, or
# with unknown ones: one of MADE is there, and FILE is not. What is there would be taken for made with these. Where none of
# MADE is there, settings may change: a value that the first run was refused for can be corrected. A WORK in which another
# program has begun is refused at any rate, since it may go on.
check_settings() {
    local file=$WORK/$1 made=$2 now other
    shift 2
    now=$(printf '%s\n' "$@")
    for other in quickstart real_photos flickr8k; do
        other=$WORK/$other.settings
        if [ -e "$other" ] && [ "$other" != "$file" ] && [[ $file != */@(training|scst).settings ]]; then
            echo "error: $WORK is another program's: it has ${other##*/}; name another WORK, or remove it" >&2
            exit 1
        fi
    done
    if ! any_made "$made"; then return; fi
    if [ -e "$file" ]; then
        if [ "$now" = "$(cat "$file")" ]; then return; fi
        echo "error: $WORK was made with other settings (< its own, > those given); name another WORK, or remove it. If they" \
            "come to the same, write those given into $file:" >&2
        diff "$file" - <<< "$now" >&2 || true
    else
        echo "error: $WORK was made by another program or an earlier version: it has no ${file##*/}, which says with what" \
            "settings. Name another WORK, or remove it. If it was made by this program with these, write them into $file:" >&2
        printf '%s\n' "$now" >&2
    fi
    exit 1
}

# any_made "MADE…"   whether one of these is in WORK, whole or begun, as .NAME.partial. A folder checkpoints… counts where it
# has a checkpoint: a training that fails at its start leaves empty ones.
any_made() {
    local name
    for name in $1; do
        if [ -e "$WORK/.$name.partial" ]; then return 0; fi
        if [ ! -e "$WORK/$name" ]; then continue; fi
        case $name in
            checkpoints*) if [ -n "$(find -L "$WORK/$name" -name '*.pt' -print -quit)" ]; then return 0; fi ;;
            *) return 0 ;;
        esac
    done
    return 1
}

# set_settings NAME[=DEFAULT]…   sets SET to a line for each of these variables of the stages that is set, and not to its
# default: earlier versions had no lines of them. PRECISION may be set to nothing, which is float32.
set_settings() {
    local word name value
    SET=()
    for word in "$@"; do
        name=${word%%=*} value=${word#"${word%%=*}"}
        if [ -n "${!name:-}" ] || { [ "$name" = PRECISION ] && [ -n "${PRECISION+x}" ]; }; then
            if [ -z "$value" ] || [ "${!name}" != "${value#=}" ]; then SET+=("$name: ${!name}"); fi
        fi
    done
}

# move_settings FROM TO NAME…   moves the lines of these settings, which earlier versions wrote into FROM, to TO.
move_settings() {
    local from=$WORK/$1 to=$WORK/$2 lines
    shift 2
    lines="^($(IFS='|' && printf '%s' "$*")): "
    if [ ! -e "$from" ] || ! grep -qE "$lines" "$from"; then return; fi
    sed -nE "/$lines/p" "$from" > "$to.partial"
    mv -- "$to.partial" "$to"
    sed -E "/$lines/d" "$from" > "$from.partial"
    mv -- "$from.partial" "$from"
}

# write_settings FILE LINE…   for check_settings
write_settings() {
    local file=$WORK/$1
    shift
    printf '%s\n' "$@" > "$file.partial"
    mv -- "$file.partial" "$file"
}

# stage NAME SCRIPT ITERATIONS OBJECTIVES ARGUMENT…   runs a training; log in logs/NAME.log, progress in the terminal.
stage() {
    local name=$1 script=$2 iterations=$3 objectives=$4
    shift 4
    ITERATIONS=$iterations bash "$STAGES/$script" "${SMALL[@]}" "$@" 2>&1 |
        python "$EXAMPLES/quickstart/progress.py" --name "$name" --updates $((iterations * objectives)) \
            --log "$WORK/logs/$name.log"
}

# caption NAME CHECKPOINT DATA SUBSET…   captions and scores of a stage's checkpoint, in results/NAME; its file captioner
# says of which, and by which METRICS and SEGMENT, where they are set, since others are not taken for these.
caption() {
    local name=$1 checkpoint=$2 data=$3 subset
    shift 3
    local captioner=$WORK/results/$name/captioner now
    now=$(printf '%s\n' "${checkpoint#"$WORK"/}" ${METRICS:+"METRICS: $METRICS"} ${SEGMENT:+"SEGMENT: $SEGMENT"})
    if [ ! -e "$captioner" ] || [ "$now" != "$(cat "$captioner")" ]; then
        mkdir -p "$WORK/results/$name"
        rm -f "$WORK/results/$name"/scores-*.json
        printf '%s\n' "$now" > "$captioner"
    fi
    for subset in "$@"; do
        if [ -e "$WORK/results/$name/scores-$subset.json" ]; then continue; fi
        CHECKPOINT=$checkpoint OUT=$WORK/results/$name SUBSET=$subset IN_DOMAIN_DATA=$data bash "$STAGES/5_caption.sh" \
            > "$WORK/logs/caption-${name//\//-}-$subset.log" 2>&1 ||
            { tail -n 20 "$WORK/logs/caption-${name//\//-}-$subset.log" >&2; exit 1; }
    done
}

# prepare DATA VOCABULARY REGIONS CAPTIONS…   a data directory of captions; SPLITS are those that it must have.
prepare() {
    local data=$1 vocabulary=$2 regions=$3
    shift 3
    if [ -e "$data" ]; then return; fi
    xgpt-prepare-captions "$@" --vocabulary "$vocabulary" --regions "$regions" \
        --output "$data" --workers 2 ${SPLITS:+--splits "$SPLITS"}
}

# curves   draws the curves of all stages that were trained, as curves.png.
curves() {
    local name logs=()
    for name in text out_of_domain in_domain finetune scst; do
        if [ -e "$WORK/logs/$name.log" ]; then logs+=("$WORK/logs/$name.log"); fi
    done
    xgpt-curves --stages "${logs[@]}" --output "$WORK/curves.png" --overwrite
}
