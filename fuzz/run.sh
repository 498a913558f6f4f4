#!/usr/bin/env bash
# Fuzzes each function for a while (FUZZ_SECONDS, 60 by default), then keeps of what was found the cases that reach something new.
# A case that breaks a promise is left in fuzz/found, and ends the run.
set -euo pipefail
cd "$(dirname "$0")"

fuzzer=../target/fuzz/release/fuzz
for corpus in corpus/*/; do
    name=$(basename "$corpus")
    found=found/$name
    mkdir -p "$found"
    echo "fuzzing $name"
    FUZZ=$name $fuzzer -max_total_time="${FUZZ_SECONDS:-60}" -max_len=2048 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$found/broken-" "$found" "$corpus" 2>&1 | grep -E 'cov:.*DONE|stat::number_of_executed|broken-|panicked|ERROR' | tail -5
    test "${PIPESTATUS[0]}" -eq 0
    FUZZ=$name $fuzzer -merge=1 -max_len=2048 "$corpus" "$found" 2>/dev/null
done
