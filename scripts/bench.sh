#!/usr/bin/env bash
# Measures: `scripts/bench.sh [rules|filter|envoy]…`, everything when nothing is named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  -h | --help) ;;
  *) ./scripts/setup.sh ;;
esac
./scripts/build.sh
exec target/release/halftone-bench "$@"
