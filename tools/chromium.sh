#!/bin/sh
# chromium.sh PYTHON: prints the path of a Chromium for the browser tests; gets one where there is none.
# CHROMIUM, else one on the PATH, else the system's package, else Playwright's own download into the user's cache.
set -eu
python=$1

on_path() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        # Ubuntu's package is a stub that only asks for snap: it is on the PATH and does not run.
        "$name" --version >/dev/null 2>&1 && command -v "$name" && return
    done
    return 1
}

if [ -n "${CHROMIUM:-}" ]; then
    [ -x "$CHROMIUM" ] || { echo "chromium: CHROMIUM is '$CHROMIUM', which is no program" >&2; exit 1; }
    echo "$CHROMIUM"
    exit
fi
on_path && exit

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "chromium: installing the system's package" >&2
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >&2; then
        on_path && exit
    fi
fi

echo "chromium: downloading Playwright's" >&2
"$python" -m playwright install chromium >&2 || {
    echo "chromium: none found and none could be installed; install Chromium, or set CHROMIUM to its path" >&2
    exit 1
}
"$python" -c 'from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    print(p.chromium.executable_path)'
