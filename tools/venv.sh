#!/bin/sh
# venv.sh FOLDER REQUIREMENTS...: a virtual environment with these requirements. Does nothing where they are already in it:
# FOLDER/installed-NAME keeps the content that was installed from each file.
set -eu
folder=$1
shift

fail() {
    echo "venv: $*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || fail "PYTHON is '$PYTHON', which is not a Python of 3.11 or newer"
        echo "$PYTHON"
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$name" >/dev/null && new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python of 3.11 or newer on the PATH; install one, or say which: make PYTHON=/path/to/python3"
}

if ! new_enough "$folder/bin/python"; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"
    echo "venv: creating $folder with $("$python" --version)" >&2
    rm -rf "$folder"
    "$python" -m venv "$folder"
fi

for requirements in "$@"; do
    stamp="$folder/installed-$(basename "$requirements")"
    # requirements-dev.txt includes requirements.txt, so the stamps hold the content of every file given up to here.
    seen="${seen:-} $requirements"
    # shellcheck disable=SC2086
    wanted=$(cat $seen)
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        echo "venv: installing $requirements; the first time this takes some minutes" >&2
        "$folder/bin/python" -m pip install --disable-pip-version-check -r "$requirements" >&2
        printf '%s\n' "$wanted" >"$stamp"
    fi
done
