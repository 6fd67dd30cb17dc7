#!/bin/bash
# Two machines with four GPUs each: `sbatch experiments/launch/slurm.sh`. Lightning reads the ranks from Slurm. Others:
# `sbatch --nodes 1 --ntasks-per-node 8 --gpus-per-node 8 experiments/launch/slurm.sh --trainer.max_epochs 3`.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --signal=B:SIGTERM@120
#SBATCH --requeue
# Slurm's SIGTERM reaches this shell two minutes before the end; the run ends its step, saves, and is resumed when the
# job is requeued.
RUN=runs/llm4sbr/slurm-$SLURM_JOB_ID
if [ -f "$RUN/config.yaml" ]; then
    srun llm4sbr resume "$RUN" &
else
    srun llm4sbr fit --config experiments/base.yaml --data experiments/data/beauty.yaml \
        --data.data_dir ../shared/data/beauty --model.backbone SRGNN \
        --views.store views/beauty --views.spec titles \
        --trainer.logger.init_args.version "slurm-$SLURM_JOB_ID" --trainer.num_nodes "$SLURM_NNODES" \
        --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.strategy ddp "$@" &
fi
STEP=$!
trap 'scancel --signal=TERM "$SLURM_JOB_ID"; wait $STEP; [ -f "$RUN/checkpoints/resume.ckpt" ] && scontrol requeue "$SLURM_JOB_ID"' TERM
wait $STEP
