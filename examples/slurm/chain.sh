#!/bin/bash
# Submit a chain of jobs under one name: each waits for the one before it and goes on from its checkpoint.
#
#   examples/slurm/chain.sh 6 --nodes 4 --export ALL,... examples/slurm/megatron_lm.sbatch
set -euo pipefail
jobs=${1:?how many jobs}
shift
for (( job = 0; job < jobs; job++ )); do
    sbatch --dependency=singleton "$@"
done
