#!/usr/bin/env bash
# Trains the models in models/ again; the result is committed, so only those who change train.py need this.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: scripts/train-models.sh [--check]

Runs models/train.py in a venv of its own (.halftone/train-venv, Python 3.11 or newer).
--check trains again and compares with what is committed; it writes nothing into models/.
EOF
}

die() {
    printf 'train-models: %s\n' "$*" >&2
    exit 1
}

wrong_argument() {
    printf "train-models: unknown argument '%s'; see scripts/train-models.sh --help\n" "$1" >&2
    exit 2
}

arguments=()
for argument in "$@"; do
    case $argument in
        --check) arguments+=("$argument") ;;
        -h | --help) usage && exit ;;
        *) wrong_argument "$argument" ;;
    esac
done

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repo/.halftone/train-venv
requirements=$repo/models/requirements.txt
stamp=$(sha256sum <"$requirements")

if [[ $(cat "$venv/stamp" 2>/dev/null) != "$stamp" ]]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed as python3"
    python3 -m venv --clear "$venv" >/dev/null ||
        die "cannot make a venv: install it, e.g. apt-get install python3-venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --requirement "$requirements" || die "cannot install $requirements: check the network"
    # Last, so that an interrupted run starts afresh.
    printf '%s\n' "$stamp" >"$venv/stamp"
fi

exec "$venv/bin/python" "$repo/models/train.py" ${arguments[@]+"${arguments[@]}"}
