#!/usr/bin/env bash
# Latency and memory of every method on one CUDA GPU, and the embedded model's quality, within nine
# minutes and without a download:
#
#   OUT=results/h100 benchmarks/gpu_suite.sh
#   OUT=runs/smoke benchmarks/gpu_suite.sh --smoke    the same steps at a tiny size, on a CPU
#
# Each step writes into OUT; one whose record is there is passed over, one that fails stops no other.
# PYTHON is the interpreter that has diffcr.
set -u

if [ -z "${OUT:-}" ]; then
    echo "gpu_suite: OUT is not set: give a directory for the records, OUT=runs/gpu $0" >&2
    exit 2
fi
python=${PYTHON:-python3}
failed=()

case "${1:-}" in
--smoke)
    default='from diffcr.pretrained import default_pipeline_path as path; print(path())'
    pipeline=$("$python" -c "$default") || exit 1
    model=(--model "$pipeline")
    resolutions=(96)
    batches=(--batch-size 1)
    pairs=2
    # A busy machine is no failure.
    deadline=1800
    patience=5
    quality=(--captions 4 --steps 2)
    cuda_graph=()
    # A whole model's graph takes a CPU most of a minute.
    compile_whole=()
    ;;
"")
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu_suite: $python sees no CUDA GPU: --smoke runs on a CPU" >&2
        exit 1
    fi
    model=(--model pixart-sigma-xl)
    resolutions=(512 1024)
    batches=(--batch-size 1 --batch-size 16)
    pairs=15
    deadline=535
    patience=1
    quality=(--captions 512)
    compile_whole=(--compile)
    cuda_graph=(--cuda-graph)
    ;;
*)
    echo "gpu_suite: $1 is not known: --smoke is the only option" >&2
    exit 2
    ;;
esac

mkdir -p "$OUT" || exit 1

# step RECORD SECONDS ARGUMENT...: run diffcr, for so long at most and not beyond the deadline.
step() {
    local record=$1 limit=$(($2 * patience)) left=$((deadline - SECONDS))
    shift 2
    if [ -e "$record" ]; then
        echo "gpu_suite: $record is there"
        return
    fi
    echo "gpu_suite: $record, after $SECONDS s"
    limit=$((limit < left ? limit : left))
    # timeout takes 0 for no limit.
    if [ "$limit" -le 0 ] || ! timeout "$limit" "$python" -m diffcr "$@"; then
        failed+=("$record")
    fi
}

# bench NAME SECONDS RESOLUTION ARGUMENT...
bench() {
    local record=$OUT/$1.json limit=$2 resolution=$3
    shift 3
    step "$record" "$limit" bench "${model[@]}" --resolution "$resolution" "${batches[@]}" \
        --dtype bfloat16 --pairs "$pairs" --output "$record" "$@"
}

routed=(--method mod:0.2 --method diffcr:0.3 --method diffcr:0.5)
whole=(--method tome:0.3:block --method at-edm:0.3)

# What says most comes first, what compiles longest last.
for resolution in "${resolutions[@]}"; do
    bench "eager-$resolution" 150 "$resolution" "${routed[@]}" "${whole[@]}" \
        ${cuda_graph[@]+"${cuda_graph[@]}"}
    bench "compiled-routed-$resolution" 90 "$resolution" --compile --method diffcr:0.3
done
step "$OUT/quality/report.json" 120 eval "${quality[@]}" --output "$OUT/quality"
for method in tome:0.3:block at-edm:0.3; do
    for resolution in "${resolutions[@]}"; do
        bench "compiled-${method%%:*}-$resolution" 120 "$resolution" \
            ${compile_whole[@]+"${compile_whole[@]}"} --method "$method"
    done
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_suite: failed: ${failed[*]}" >&2
    exit 1
fi
echo "gpu_suite: all records are in $OUT, after $SECONDS s"
