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
CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$remap" \
  cargo build --locked --profile wasm --target wasm32-wasip1 -p halftone-filter
cargo build --locked --release
