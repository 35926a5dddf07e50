#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH seconds (60), or those that are named. What was found
# interesting is kept in target/fuzz/corpus, a crash in target/fuzz/TARGET-crash-*, to be run again
# with the target's program and that file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=${CARGO_TARGET_DIR:-$here/../../target}/fuzz
seconds=${SECONDS_EACH:-60}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(catalog tar zip tree addon jar log hs_err)

# Coverage and comparisons are told to libFuzzer; this needs no other compiler.
flags=(-Cpasses=sancov-module -Ccodegen-units=1)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${flags[*]} --cfg fuzzing" cargo build --release --quiet \
  --manifest-path "$here/Cargo.toml" --target-dir "$into" --target x86_64-unknown-linux-gnu

# Archives are unpacked thousands of times: not onto a disk.
memory=$(mktemp -d /dev/shm/zlh-fuzz.XXXXXX)
trap 'rm -rf "$memory"' EXIT
for target in "${targets[@]}"; do
  corpus=$into/corpus/$target
  program=$into/x86_64-unknown-linux-gnu/release/$target
  mkdir -p "$corpus"
  echo "== $target, $seconds s =="
  TMPDIR=$memory ZLH_FUZZ_SEEDS=$corpus "$program" -runs=1 >/dev/null 2>&1
  TMPDIR=$memory "$program" -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=1024 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$into/$target-" "$corpus" 2>&1 |
    grep -v "# Uses: \|ecommended dictionary\|Failed to find function\|NEW_FUNC"
done
