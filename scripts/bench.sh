#!/usr/bin/env bash
# Measures. Sets up and builds what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'EOF'
usage: scripts/bench.sh [rules | filter | envoy | fleet | inference | judge | ledger | release | telemetry]…

Measures what is named, or everything:
  rules   the evaluator, native: decisions per second
  filter  the filter module: size, host calls, fuel
  envoy   real Envoy: time until a change is in force everywhere, memory, CPU per request beside Lua and native routes
  fleet   a thousand proxies on one control plane: time until all have ACKed a change, memory per proxy
  inference  the inference service: batching, throughput, overload, fixed rates through Envoy, beside other servers
             and beside ONNX Runtime itself
  judge   the judge: cost per metric and tick, of a new look, releases per second
  ledger  10 million units into a control plane: records per second, memory, time to read what a verdict needs
  release releases on real Envoy: time from a fault of the candidate to its last answer
  telemetry  traces, metrics and logs: what they cost the inference service, also when the collector is in trouble
EOF
}

# Before the build, which can take minutes.
for argument in "$@"; do
    case $argument in
        -h | --help) usage && exit ;;
        rules | filter | envoy | fleet | inference | judge | ledger | release | telemetry) ;;
        *)
            echo "bench: unknown argument '$argument'; see scripts/bench.sh --help" >&2
            exit 2
            ;;
    esac
done

setup=()
case " $* " in
    "  " | *" inference "*) setup+=(--peers) ;;&
    "  " | *" telemetry "*) setup+=(--tests) ;;
esac
./scripts/setup.sh "${setup[@]}"
./scripts/build.sh
# Cargo knows where it builds.
exec cargo run --locked --release --quiet --bin halftone-bench -- "$@"
