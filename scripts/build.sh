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
target=$(cargo metadata --locked --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
wasm=$target/wasm32-wasip1/wasm
build_filter() { cargo build --locked --profile wasm --target wasm32-wasip1 -p halftone-filter "$@"; }
# variant NAME OPTION…: the filter with other features, as halftone_filter_NAME.wasm. In a folder of its own: cargo knows
# one module by that name, so each would be built anew every time, in the place of the one that a running Envoy loads.
variant() {
    local built=$target/filter-$1/wasm32-wasip1/wasm/halftone_filter.wasm module=$wasm/halftone_filter_$1.wasm
    build_filter --target-dir "$target/filter-$1" "${@:2}"
    cmp --silent "$built" "$module" || cp "$built" "$module"
}
build_filter
# For hosts without timers, metrics, shared data and calls to clusters: see filter/Cargo.toml.
variant portable --no-default-features
# For the tests of what happens when a module fails.
variant trap --features trap
unset CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS
cargo build --locked --release
