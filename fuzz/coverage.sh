#!/usr/bin/env bash
# Replays the committed corpora in an instrumented build, and prints the share of lines that they
# reach, for each file that a target is about. Tests are not part of that build.
#
# LLVM's tools must be of the compiler's version (`rustc -vV`); Debian's llvm-22 are for Rust 1.95:
#   LLVM=/usr/lib/llvm-22/bin fuzz/coverage.sh
set -euo pipefail
cd "$(dirname "$0")"

llvm=${LLVM:-/usr/lib/llvm-22/bin}
target_dir=target/coverage
profiles=$target_dir/profiles
rm -rf "$profiles"
mkdir -p "$profiles"

RUSTFLAGS="--cfg fuzzing -Cinstrument-coverage" \
    LLVM_PROFILE_FILE="$PWD/$profiles/build-%p.profraw" \
    cargo build --quiet --target-dir "$target_dir"

objects=()
for source in fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    LLVM_PROFILE_FILE="$profiles/$target.profraw" \
        "$target_dir/debug/$target" "corpus/$target"/* >"$profiles/$target.log" 2>&1 ||
        { cat "$profiles/$target.log"; exit 1; }
    objects+=(-object "$target_dir/debug/$target")
done
rm -f "$profiles"/build-*.profraw
"$llvm/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$profiles/all.profdata"

# What the targets drive, but for what they are made of.
files=$(cd .. && ls src/engine/*.rs src/engine/breaker/*.rs src/settings/*.rs src/resolve/*.rs \
    src/endpoint/*.rs src/proxy_header.rs src/eyeballs.rs src/connector/http1.rs \
    src/backend/probe.rs src/clock.rs |
    grep -Ev '/(fuzz|tests|specification|table|order|regressions|seeded)\.rs$')
# shellcheck disable=SC2086 # one argument a file
"$llvm/llvm-cov" report -instr-profile "$profiles/all.profdata" "${objects[@]:1}" \
    $(for file in $files; do echo "$PWD/../$file"; done) |
    awk '$8 ~ /^[0-9]+$/ { printf "%-40s %5d lines, %5d missed, %s\n", $1, $8, $9, $10 }'
