#!/usr/bin/env bash
# Makes the virtual environment and installs jupyter_inplace into it, editable, with the extras given.
#
#   tools/make_venv.sh FOLDER EXTRAS        for example: tools/make_venv.sh .venv test
#
# CONSTRAINTS names the file of pinned versions, constraints.txt where it is not given.
# PYTHON names the interpreter to make it with. What is missing is said in one line.
set -euo pipefail
folder=$1
extras=$2

say() { printf '== %s\n' "$*"; }
stop() {
    printf 'make: %s\n' "$*" >&2
    exit 1
}
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# An environment counts no longer where its Python was taken away or where making it was interrupted.
if [ -e "$folder" ] && ! { is_new_enough "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    say "$folder is not whole: making it anew"
    rm -rf "$folder"
fi

if [ ! -e "$folder" ]; then
    chosen=
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python}; do
        if is_new_enough "$candidate"; then
            chosen=$candidate
            break
        fi
    done
    [ -n "$chosen" ] || stop "Python 3.11 or newer is missing; install it, or name it: make PYTHON=/path/to/python3.11"
    say "making $folder with $("$chosen" --version)"
    "$chosen" -m venv "$folder" >/dev/null || stop "$chosen has no venv module (Debian: apt-get install python3-venv)"
fi

if [ -f labextension/package.json ]; then
    command -v npm >/dev/null || stop "npm is missing; the notebook panel is built with it"
fi

say "installing jupyter_inplace[$extras] and what it needs; PyTorch is large, so this takes minutes"
"$folder/bin/python" -m pip install --constraint "${CONSTRAINTS:-constraints.txt}" --editable ".[$extras]" ||
    stop "the installation failed, see above; is the package registry within reach?"
say "installed"
