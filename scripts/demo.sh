#!/usr/bin/env bash
# The main job: real digits through real Envoy, split by a gray rule, then by releases. Sets up and builds what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'EOF'
usage: scripts/demo.sh [OPTION]…

Replays handwritten digits through Envoy, changes the rule under load, lets releases be promoted and rolled back by
themselves, and then stays up for you to try.

  --check              check every claim, end by itself, and fail when one is false
  --rest-port PORT     of the REST API [8080]
  --xds-port PORT      of the xDS server [18000]
  --envoy-port PORT    of Envoy [10000]
  --admin-port PORT    of Envoy's admin interface [9901]
  --backend-port PORT  of the first backend; the others take the next ones [8001]
  --free-ports         let the system choose all ports, also those of the metrics (9921 of the control plane, 9911 to
                       9913 of the backends); with a --folder of its own, a demo can run beside another
  --folder FOLDER      for the logs and the store: a new one, an empty one, or one that an earlier demo made
                       [.halftone/demo]
  --otlp-endpoint URL  an OpenTelemetry collector (http://HOST:PORT) that the control plane and the backends send spans
                       and metrics to

environment:
  HALFTONE_ENVOY, ORT_DYLIB_PATH   an Envoy and a libonnxruntime of your own; see scripts/setup.sh --help
EOF
}

# Wrong options are refused before the build, which can take minutes; values are left to the program.
value=false
for argument in "$@"; do
    if $value; then
        value=false
        continue
    fi
    case $argument in
        -h | --help) usage && exit ;;
        --check | --free-ports | --folder=* | --*-port=* | --otlp-endpoint=*) ;;
        --folder | --otlp-endpoint | --rest-port | --xds-port | --envoy-port | --admin-port | --backend-port) value=true ;;
        *)
            echo "demo: unknown argument '$argument'; see scripts/demo.sh --help" >&2
            exit 2
            ;;
    esac
done

./scripts/setup.sh
echo "Building (some minutes the first time) …"
./scripts/build.sh
# Cargo knows where it builds.
exec cargo run --locked --release --quiet --bin halftone-demo -- "$@"
