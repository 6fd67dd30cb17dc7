#!/bin/bash
# One machine, all its GPUs, started by torchrun: `bash experiments/launch/torchrun.sh`. More machines: --nnodes and
# --rdzv-endpoint as torchrun has them, and --trainer.num_nodes to match. CPU processes in place of GPUs:
# PROCESSES=2 bash experiments/launch/torchrun.sh --trainer.accelerator cpu
PROCESSES=${PROCESSES:-$(nvidia-smi --list-gpus | wc -l)}
exec torchrun --nproc-per-node "$PROCESSES" -m llm4sbr fit --config experiments/base.yaml \
    --data experiments/data/beauty.yaml --data.data_dir ../shared/data/beauty \
    --model.backbone SRGNN --views.store views/beauty --views.spec titles \
    --trainer.devices "$PROCESSES" --trainer.strategy ddp "$@"
