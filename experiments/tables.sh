#!/bin/bash
# Renew every table of README.md and experiments/README.md that stands on the protocol's results:
#     bash experiments/tables.sh
# Run from the project's root; where.py needs the title views of both data sets (Equal tuning, in README.md here).
set -euo pipefail
results=experiments/results
table() { python experiments/table.py "$@"; }
for data in beauty ml-100k; do
  folder=$results/protocol-$data baselines=$results/baselines options=()
  if [ $data = beauty ]; then options=(--data_dir ../shared/data/beauty); else baselines=$baselines-$data; fi
  table $folder $baselines --json $folder.json
  table $folder $baselines --against sequential-rules --json $folder-vs-rules.json
  for beside in $folder-rules $folder-repeats; do
    if ! ls $beside/*.json > /dev/null 2>&1; then continue; fi
    table $beside --json $beside.json
    table $folder $beside --over-plain --json $beside-vs-without.json
    table $beside $baselines --against sequential-rules --json $beside-vs-rules.json
  done
  if [ -d $folder-one-seed ]; then table $folder-one-seed --json $folder-one-seed.json; fi
  python experiments/where.py $folder $baselines --data experiments/data/$data.yaml "${options[@]}" \
      --store views/$data --json $results/where-$data.json
done
folders=()
for data in beauty ml-100k; do
  for folder in $results/protocol-$data{,-one-seed}; do
    if [ -d $folder ]; then folders+=($folder); fi
  done
done
python experiments/summary.py "${folders[@]}" --json $results/lifts.json
python experiments/publish.py
