#!/usr/bin/env bash
# Everything that is to be measured on a GPU, from parts that pack.sh made, without a network:
#
#   run.sh --keep                 take the parts that this call carried to the store, and end
#   run.sh [--budget S]           keep, check, unpack, then all steps that S seconds allow (570)
#   run.sh --rehearse ...         tiny sizes, on Warp's CPU device
#
# Options: --parts FOLDER (.gpu), --store FOLDER, --out FOLDER ($OUT), --only "STEP ...", --slow STEP (it hangs: to see that
# its limit ends it). Results are lines in OUT/results.jsonl, written as they come; the log is OUT/run.log. Exit status 2: a
# part is missing or altered, and is named.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
budget=570 rehearse="" only="" slow="" keep_only="" parts="$root/.gpu" out="${OUT:-$root/gpu-results}"
store="${TMPDIR:-/tmp}/simreal-gpu"
while [ $# -gt 0 ]; do
    case "$1" in
        --keep) keep_only=yes ;;
        --rehearse) rehearse=--rehearse ;;
        --budget | --parts | --store | --out | --only | --slow)
            [ $# -gt 1 ] || { echo "run.sh: $1: expected a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift ;;
        *) echo "run.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
case "$budget" in '' | *[!0-9]*) echo "run.sh: --budget: expected seconds, got '$budget'" >&2; exit 2 ;; esac
began=$SECONDS
if [ -d "$parts" ]; then
    "$python" "$here/parts.py" keep "$parts" "$store/parts" || exit 2
fi
if [ -n "$keep_only" ]; then
    exit 0
fi
mkdir -p "$out"
log="$out/run.log"
results="$out/results.jsonl"
: >"$results"
left() { echo $((budget - SECONDS + began)); }
note() { echo "$1" | tee -a "$results" "$log"; }
child=""
cut_off() {
    note "{\"step\": \"run\", \"cut_off\": \"$1\", \"left_s\": $(left)}"
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null
    exit 143
}
trap 'cut_off TERM' TERM
trap 'cut_off INT' INT

# Nothing is installed: Python finds the packages by their path. What an earlier call unpacked is used again.
command=check
of=$(sha256sum <"$store/parts/manifest.json" 2>/dev/null)
if [ ! -f "$store/cargo.of" ] || [ "$(cat "$store/cargo.of")" != "$of" ]; then
    command=unpack
    rm -rf "$store/cargo" "$store/cargo.of"
fi
target=("$store/parts")
[ "$command" = unpack ] && target+=("$store/cargo")
"$python" "$here/parts.py" "$command" "${target[@]}" 2>&1 | tee -a "$log" || exit 2
echo "$of" >"$store/cargo.of"
export PYTHONPATH="$root:$store/cargo/site${PYTHONPATH:+:$PYTHONPATH}"
export MENAGERIE_ROOT="$store/cargo/robots" WARP_CACHE_PATH="$store/cargo/kernels" PYTHONUNBUFFERED=1
note "{\"step\": \"$command\", \"seconds\": $((SECONDS - began)), \"left_s\": $(left)}"

# step NAME LIMIT COMMAND...: with a limit of its own; skipped where the time that is left is too short for it
step() {
    local name=$1 limit=$2 from=$SECONDS status
    shift 2
    [ -n "$only" ] && [[ " $only " != *" $name "* ]] && return 0
    [ "$limit" -gt "$(left)" ] && limit=$(left)
    if [ "$limit" -lt 5 ]; then
        note "{\"step\": \"$name\", \"skipped\": \"$(left) s are left\"}"
        return 0
    fi
    echo "== $name, at most $limit s" | tee -a "$log"
    timeout --signal=TERM --kill-after=5 "$limit" "${@//LIMIT/$limit}" >>"$log" 2>&1 &
    child=$!
    wait "$child"
    status=$?
    child=""
    note "{\"step\": \"$name\", \"status\": $status, \"seconds\": $((SECONDS - from)), \"limit_s\": $limit}"
}
part() {
    local name=$1 limit=$2 what=$1
    [ "$name" = "$slow" ] && what=hang
    step "$name" "$limit" "$python" "$here/steps.py" "$what" --out "$out" --runs "$store/runs" \
        --seconds LIMIT ${rehearse:+"$rehearse"}
}
if [ -n "$rehearse" ]; then
    step kernels 300 "$python" "$here/kernels.py" --arch "${GPU_ARCH:-90}" --only contract
    limits=(contract 900 speed 900 go1 600 graph 300 pictures 600 update 300)
else
    # kernels: what the parts do not hold, on all processors
    step kernels 60 "$python" "$here/kernels.py" --arch "${GPU_ARCH:-90}"
    limits=(contract 80 speed 120 go1 140 graph 40 pictures 30 update 40)
fi
declare -A limit=()
for ((i = 0; i < ${#limits[@]}; i += 2)); do limit[${limits[i]}]=${limits[i + 1]}; done
part contract "${limit[contract]}"
part speed "${limit[speed]}"
part go1 "${limit[go1]}"
part graph "${limit[graph]}"
# the cube takes what the steps after it leave
cube=$(left)
for later in pictures update; do
    if [ -z "$only" ] || [[ " $only " == *" $later "* ]]; then cube=$((cube - limit[$later])); fi
done
[ -n "$rehearse" ] && [ "$cube" -gt 180 ] && cube=180
part cube "$cube"
part pictures "${limit[pictures]}"
part update "${limit[update]}"
if [ -d "$store/runs" ]; then
    tar -C "$store" --exclude=checkpoints --exclude=tensorboard --exclude='events.*' -czf "$out/runs.tar.gz" runs
fi
note "{\"step\": \"run\", \"seconds\": $((SECONDS - began)), \"left_s\": $(left)}"
