#!/usr/bin/env bash
# Is ssl_bench right on a GPU, and how fast? Some eight minutes on one card; see README.md beside this file.
#
#   bash benchmarks/gpu.sh --carry VENV [PNGS]   here: put what the machine lacks into benchmarks/.carry
#   bash benchmarks/gpu.sh [SECTION ...]         there: measure; all sections without a name
#
# Environment: OUT folder for gpu.json and gpu.log, to which calls add (gpu_results); TOTAL seconds for everything (480);
# DEVICE (cuda); DATA folder with CIFAR-10 (data), whose loads go to its folder cifar10; PYTHON (python3).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
python=${PYTHON:-python3}
carried=$here/.carry

carry() { # Hydra and what it needs, all of it pure Python, and CIFAR-10 in loads of two strips
  site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -rf "$carried"
  mkdir -p "$carried/site"
  for package in hydra omegaconf antlr4; do cp -rL "$site/$package" "$carried/site/"; done
  for package in hydra_core omegaconf antlr4_python3_runtime; do cp -rL "$site/$package"-*.dist-info "$carried/site/"; done
  find "$carried/site" -name __pycache__ -type d -prune -exec rm -rf {} +
  git -C "$repo" describe --always --dirty --abbrev=12 > "$carried/commit" 2>/dev/null || true
  if [ -n "${2:-}" ]; then
    mkdir "$carried"/cifar10-{1,2,3}
    cp "$2"/data_batch_[12].png "$carried/cifar10-1"
    cp "$2"/data_batch_[34].png "$carried/cifar10-2"
    cp "$2"/{data_batch_5,test_batch}.png "$2"/*_lables.json "$carried/cifar10-3"
  fi
  du -sh "$carried"/*
}

case ${1:-} in
--carry) carry "${2:?the virtual environment that holds Hydra}" "${3:-}"; exit ;;
--*) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

export OUT=${OUT:-$repo/gpu_results} DATA=${DATA:-$repo/data} TOTAL=${TOTAL:-480} DEVICE=${DEVICE:-cuda}
OUT=$(realpath -m "$OUT") DATA=$(realpath -m "$DATA")
COMMIT=$(git -C "$repo" describe --always --dirty --abbrev=12 2>/dev/null || cat "$carried/commit" 2>/dev/null || echo unknown)
export COMMIT
mkdir -p "$OUT"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/site"
cp -r "$repo/src/ssl_bench" "$work/site/" # as an installation lays it out
cp -r "$repo/conf" "$work/site/ssl_bench/conf"
mkdir "$work/site/benchmarks"
cp "$here"/*.py "$work/site/benchmarks/"
# Carried packages come last, so that installed ones count.
export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}:$carried/site PYTHONUNBUFFERED=1
export TRITON_CACHE_DIR=$work/triton TORCHINDUCTOR_CACHE_DIR=$work/inductor
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # without which nothing repeats bit for bit
export PYTORCH_NVML_BASED_CUDA_CHECK=1 # which leaves CUDA untouched, so that processes can be forked
cd "$work"
"$python" -c 'import hydra, omegaconf, torch, pytorch_lightning, ssl_bench.config.compose' || {
  echo "packages are missing: see --carry"
  exit 3
}
"$python" "$here/gpu.py" "$@" 2>&1 | tee -a "$OUT/gpu.log"
