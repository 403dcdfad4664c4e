#!/usr/bin/env bash
# The main job: real digits through real Envoy, split by a gray rule. `--check` checks it and ends;
# `--help` shows the other options. Sets up and builds what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
echo "Building (some minutes the first time) …"
./scripts/build.sh
exec target/release/halftone-demo "$@"
