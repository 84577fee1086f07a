#!/usr/bin/env bash
# Latency, memory and quality on one CUDA GPU, without a download, in parts that are whole by
# themselves and take at most four minutes each:
#
#   OUT=results/h100 benchmarks/gpu_suite.sh [PART ...]           all of them, or those that are named
#   OUT=runs/smoke benchmarks/gpu_suite.sh --smoke [PART ...]     the same at a tiny size, on a CPU
#
#   a  one picture, PixArt-Sigma XL at 512 and 1024 pixels: eager, replayed, and a profile
#   b  one picture, FLUX.1-dev and a video of Wan 1.3B: eager, replayed
#   c  PixArt-Sigma XL at batch 16, and compiled
#   d  quality of the embedded model
#
# Each step writes into OUT; one whose record is there is passed over, one that fails stops no other.
# PYTHON is the interpreter that has diffcr.
set -u

if [ -z "${OUT:-}" ]; then
    echo "gpu_suite: OUT is not set: give a directory for the records, OUT=runs/gpu $0" >&2
    exit 2
fi
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
smoke=
parts=()
for argument in "$@"; do
    case "$argument" in
    --smoke) smoke=1 ;;
    a | b | c | d) parts+=("$argument") ;;
    *)
        echo "gpu_suite: $argument is not known: give --smoke, or parts: a, b, c, d" >&2
        exit 2
        ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(a b c d)

if [ -n "$smoke" ]; then
    # A busy machine is no failure.
    part_seconds=1200
    patience=10
    pairs=1
    size=(--tiny --device cpu)
    resolutions=(64)
    large=2
    replayed=()
    # A whole model's graph takes a CPU most of a minute.
    whole_compiled=()
    quality=(--captions 4 --steps 2 --pairs 1)
else
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu_suite: $python sees no CUDA GPU: --smoke runs on a CPU" >&2
        exit 1
    fi
    part_seconds=235
    patience=1
    pairs=15
    size=()
    resolutions=(512 1024)
    large=16
    replayed=(--cuda-graph)
    whole_compiled=(--method tome:0.3:block)
    quality=(--captions 512)
fi
failed=()
mkdir -p "$OUT" || exit 1

# step RECORD SECONDS COMMAND...: for so long at most, and not beyond the part's time.
step() {
    local record=$1 limit=$(($2 * patience)) left=$((part_end - SECONDS))
    shift 2
    if [ -e "$record" ]; then
        echo "gpu_suite: $record is there"
        return
    fi
    echo "gpu_suite: $record, after $SECONDS s"
    limit=$((limit < left ? limit : left))
    # timeout takes 0 for no limit.
    if [ "$limit" -le 0 ] || ! timeout "$limit" "$python" "$@"; then
        failed+=("$record")
    fi
}

# bench NAME SECONDS MODEL ARGUMENT...
bench() {
    local record=$OUT/$1.json limit=$2 model=$3
    shift 3
    step "$record" "$limit" -m diffcr bench --model "$model" ${size[@]+"${size[@]}"} \
        --dtype bfloat16 --pairs "$pairs" --output "$record" "$@"
}

routed=(--method diffcr:0.3 --method diffcr:0.5 --method fewer-layers:0.3)

part_a() {
    for resolution in "${resolutions[@]}"; do
        bench "a-eager-$resolution" 100 pixart-sigma-xl --resolution "$resolution" "${routed[@]}" \
            --method tome:0.3:block ${replayed[@]+"${replayed[@]}"}
    done
    step "$OUT/a-profile.json" 60 "$here/profile_forward.py" ${smoke:+--tiny} \
        --resolution "${resolutions[0]}" --output "$OUT/a-profile.json"
}

part_b() {
    bench b-flux-dev 120 flux-dev "${routed[@]}" ${replayed[@]+"${replayed[@]}"}
    bench b-wan-1.3b 110 wan-1.3b "${routed[@]}" ${replayed[@]+"${replayed[@]}"}
}

part_c() {
    for resolution in "${resolutions[@]}"; do
        bench "c-batch-$resolution" 70 pixart-sigma-xl --resolution "$resolution" \
            --batch-size "$large" "${routed[@]}"
    done
    bench c-compiled 120 pixart-sigma-xl --resolution "${resolutions[0]}" --compile \
        --batch-size 1 --batch-size "$large" --method diffcr:0.3 \
        ${whole_compiled[@]+"${whole_compiled[@]}"}
}

part_d() {
    step "$OUT/d-quality/report.json" 120 -m diffcr eval "${quality[@]}" --output "$OUT/d-quality"
    step "$OUT/d-cached/report.json" 110 -m diffcr eval "${quality[@]}" \
        --method first-block-cache:0.12 --output "$OUT/d-cached"
}

for part in "${parts[@]}"; do
    part_end=$((SECONDS + part_seconds))
    "part_$part"
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_suite: failed: ${failed[*]}" >&2
    exit 1
fi
echo "gpu_suite: all records are in $OUT, after $SECONDS s"
