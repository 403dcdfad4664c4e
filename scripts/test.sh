#!/usr/bin/env bash
# All tests: format, lints, unit, property, fuzzing, end to end on real Envoy and ONNX Runtime, and the demo's
# own checks. Sets up and builds what is missing. Needs Python 3.11 or newer with venv, for the models.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "") ;;
  -h | --help) echo "usage: scripts/test.sh"; exit 0 ;;
  *) echo "test.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac

step() { printf '\n=== %s (%d s)\n' "$1" "$SECONDS"; }

step "set-up"
./scripts/setup.sh --tests

step "format"
cargo fmt --all --check

step "alerts: promtool checks the rules and lets each alert fire"
promtool=.halftone/prometheus/promtool
if [[ -n ${HALFTONE_TEST_PROMETHEUS:-} ]]; then promtool=$(dirname -- "$HALFTONE_TEST_PROMETHEUS")/promtool; fi
"$promtool" check config deploy/prometheus/prometheus.yml
"$promtool" test rules deploy/prometheus/tests/*.yml

step "build"
./scripts/build.sh

step "tests"
cargo nextest run --locked --release
cargo test --locked --release --doc --quiet

step "lints"
cargo clippy --locked --release --all-targets -- -D warnings
cargo clippy --locked --profile wasm --target wasm32-wasip1 -p halftone-filter -- -D warnings

step "edge: the inference service compiles for aarch64"
edge=aarch64-unknown-linux-gnu
if [[ -d $(rustc --print sysroot)/lib/rustlib/$edge/lib ]]; then
    cargo check --locked --release --target "$edge" -p halftone-inference
else
    echo "not checked: this toolchain has no target $edge"
fi

step "fuzzing, briefly; scripts/fuzz.sh goes on for longer"
cargo fmt --manifest-path fuzz/Cargo.toml --check
./scripts/fuzz.sh --seconds 5

step "models: the training script still makes what is committed"
./scripts/train-models.sh --check

step "demo"
cargo run --locked --release --quiet --bin halftone-demo -- --check --free-ports --folder .halftone/demo-check

step "all tests passed"
