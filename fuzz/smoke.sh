#!/usr/bin/env bash
# Builds all fuzz targets once and runs each for so many seconds, from its seeds and with its
# dictionary. What it finds goes to fuzz/target/found/<target>, not among the seeds; an input that
# fails stays there and is tried first the next time. A line per target; fails whole, with the
# output, when a target does.
#
#   fuzz/smoke.sh 60            all targets, a minute each
#   fuzz/smoke.sh 600 engine    this one
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?seconds for each target}
shift
toolchain=${FUZZ_TOOLCHAIN:-nightly}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    list=$(cargo "+$toolchain" fuzz list)
    mapfile -t targets <<<"$list"
fi

cargo "+$toolchain" fuzz build
failed=0
for target in "${targets[@]}"; do
    found=fuzz/target/found/$target
    log=fuzz/target/found/$target.log
    options=(-max_total_time="$seconds" -artifact_prefix="$found/" -print_final_stats=1
        -max_len=4096 -timeout=20)
    dictionary=fuzz/dictionaries/$target.dict
    if [ -f "$dictionary" ]; then
        options+=(-dict="$dictionary")
    fi
    mkdir -p "$found"
    if cargo "+$toolchain" fuzz run "$target" "$found" "fuzz/corpus/$target" -- \
        "${options[@]}" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        coverage=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1)
        printf '%-13s %9s runs, %s\n' "$target" "$runs" "$coverage"
    else
        cat "$log"
        printf '%-13s FAILED\n' "$target"
        failed=1
    fi
done
exit "$failed"
