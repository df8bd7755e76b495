#!/usr/bin/env bash
# Runs the core tests with several versions of TensorFlow and Keras, each pair
# in a fresh virtual environment, and prints a table of how many passed.
#
#     scripts/versions.sh                      # the pairs below
#     scripts/versions.sh 2.20:3.13 2.19:3.14  # some; TensorFlow:Keras
#
# A pair that has passed is not run again; its log is in build/versions/. To run
# it anew, remove that. The exit code is 1 if any test failed. VERSIONS_DIR is
# another folder for logs, PYTHON another Python; arguments for pytest go into
# PYTEST_ADDOPTS. With uv installed, environments are made in seconds.
set -uo pipefail
cd "$(dirname "$0")/.."

pairs=("$@")
if [ $# -eq 0 ]; then
    pairs=(2.{18,19,20,21}:3.{12,15} 2.{18,21}:3.{13,14})
fi
core=(
    tests/callbacks/test_callback_state.py
    tests/layers
    tests/noise/test_noise.py
    tests/optimizers
    tests/step/test_model_state.py
    tests/step/test_trainer.py
    tests/store/test_store.py
    tests/test_keras_compat.py
    tests/test_old_files.py
    tests/test_registration.py
    tests/test_versions.py
)
python=${PYTHON:-python3}
logs=${VERSIONS_DIR:-build/versions}
mkdir -p "$logs"
python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

install() { # environment, requirements...
    if command -v uv > /dev/null; then
        uv venv --quiet --python "$python" "$1" &&
            uv pip install --quiet --python "$1/bin/python" \
                --reinstall-package tf-gnc "${@:2}" # not one it has built before
    else
        "$python" -m venv "$1" && "$1/bin/pip" install --quiet "${@:2}"
    fi
}

run_pair() { # TensorFlow, Keras, log
    install "$work/venv" . "tensorflow==$1.*" "keras==$2.*" \
        pytest pytest-timeout pytest-xdist &&
        "$work/venv/bin/python" -m pytest -q -p no:cacheprovider "${core[@]}"
    local code=$?
    rm -rf "$work/venv"
    return $code
}

log_of() { # pair
    echo "$logs/python$python_version-tensorflow${1%:*}-keras${1#*:}.log"
}

passed() { # log
    [ -f "$1" ] && [ "$(tail -n 1 "$1")" = "exit code 0" ]
}

for pair in "${pairs[@]}"; do
    log=$(log_of "$pair")
    if ! passed "$log"; then
        echo "TensorFlow ${pair%:*} with Keras ${pair#*:} ..." >&2
        run_pair "${pair%:*}" "${pair#*:}" > "$log.part" 2>&1
        echo "exit code $?" >> "$log.part"
        mv "$log.part" "$log"
    fi
done

bad=0
printf '%-12s%-8s%s\n' TensorFlow Keras "core tests, Python $python_version"
for pair in "${pairs[@]}"; do
    log=$(log_of "$pair")
    result=$(grep -E '^[0-9]+ (passed|failed|errors?)\b.* in ' "$log" | tail -1)
    printf '%-12s%-8s%s\n' "${pair%:*}" "${pair#*:}" "${result:-not run: $log}"
    passed "$log" || bad=1
done
exit $bad
