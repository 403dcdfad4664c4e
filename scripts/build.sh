#!/usr/bin/env bash
# Builds the filter module (wasm) and everything that runs natively, in the one profile that the demo,
# the tests and the benchmarks share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  "") ;;
  -h | --help) echo "usage: scripts/build.sh"; exit 0 ;;
  *) echo "build.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac

# Source paths of the build machine do not belong into the module.
remap="--remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
export CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$remap"
wasm=$(cargo metadata --locked --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/wasm32-wasip1/wasm
build_filter() { cargo build --locked --profile wasm --target wasm32-wasip1 -p halftone-filter "$@"; }
# For hosts without timers, metrics, shared data and calls to clusters: see filter/Cargo.toml.
build_filter --no-default-features
cp "$wasm/halftone_filter.wasm" "$wasm/halftone_filter_portable.wasm"
# For the tests of what happens when a module fails.
build_filter --features trap
cp "$wasm/halftone_filter.wasm" "$wasm/halftone_filter_trap.wasm"
build_filter
unset CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS
cargo build --locked --release
