#!/usr/bin/env bash
# Run a job on the machine where unpack.sh was: bash experiments/gpu/job.sh NAME --out OUT [--minutes 7]
set -euo pipefail
cd "$(dirname "$0")/../.."
export GPU_ROOT="${GPU_ROOT:-/tmp/llm4sbr-gpu}"
export PYTHONPATH="$GPU_ROOT/site${PYTHONPATH:+:$PYTHONPATH}" LLM4SBR_CACHE="$GPU_ROOT/cache"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
exec python3 experiments/gpu/job.py "$@"
