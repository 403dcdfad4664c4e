#!/usr/bin/env bash
# Fuzzes the compiler, the bundle's decoder, the evaluator, the judge, and the parsers of inference requests. Sets up and
# builds what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TARGETS=(yaml expression bundle evaluate judge infer_rest infer_grpc)

usage() {
    cat <<'EOF'
usage: scripts/fuzz.sh [TARGET]… [--seconds N]

Runs each fuzz target that is named, or all, for N seconds (60 when left out):
  yaml        a ruleset's text: an answer, and what compiles runs
  expression  a condition's text: the same result with and without optimisation
  bundle      a bundle's bytes, also behind a header that is right
  evaluate    changed bundles: what verifies decides without a fault
  judge       a policy, data and a state as JSON: a verdict, and the same bytes again
  infer_rest  an inference request over REST: an answer, and tensors that are what it said
  infer_grpc  the same over gRPC

Each run starts from fuzz/seeds/TARGET and keeps what it learns in fuzz/corpus/TARGET. An input that fails is
written to fuzz/artifacts/TARGET; once it is mended, move it to fuzz/seeds/TARGET, so that it stays mended.
EOF
}

wrong() {
    echo "fuzz: $1; see scripts/fuzz.sh --help" >&2
    exit 2
}

seconds=60
targets=()
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --seconds)
            [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || wrong "--seconds needs a whole number from 1 to 999999"
            seconds=$2
            shift
            ;;
        *)
            [[ " ${TARGETS[*]} " == *" $1 "* ]] || wrong "unknown argument '$1'"
            targets+=("$1")
            ;;
    esac
    shift
done
((${#targets[@]})) || targets=("${TARGETS[@]}")

./scripts/setup.sh --tests
# The code is free of `unsafe`, so there is nothing for a sanitizer; without one the pinned stable Rust will do.
cargo fuzz build --sanitizer none
for target in "${targets[@]}"; do
    echo "fuzz: $target, $seconds s"
    mkdir -p "fuzz/corpus/$target" fuzz/artifacts
    log=fuzz/artifacts/$target.log
    # The first folder takes new inputs. An input that takes ten seconds is a failure.
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 >"$log" 2>&1 || {
        grep -m1 -A6 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" >&2 || tail -n 20 "$log" >&2
        echo "fuzz: $target failed; all it said is in $log, with the command that repeats it" >&2
        exit 1
    }
    # libFuzzer's last word: how many inputs it tried.
    grep '^Done' "$log"
done
