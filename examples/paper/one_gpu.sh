#!/usr/bin/env bash
# The paper's comparison at 77M parameters on one GPU: its 164M NCA tokens and then 1B of text, and that text alone, three seeds each.
#
#   MEGATRON_LM=/opt/Megatron-LM DATA=/data/owt_text_document SAVE=/checkpoints examples/paper/one_gpu.sh
#   until [ -e /checkpoints/comparison.txt ]; do sbatch --wait ... examples/paper/one_gpu.sh || break; done
#
# A call trains for MINUTES (nine, if it is not set), saves and ends; the next one goes on there. Once all six runs are at their
# end it compares them, seed by seed, in SAVE/comparison.txt. The batches and NCA's steps are the paper's but for text, where a batch
# is 256 x 1,024; sizes and rates are our choice. What stands behind the script's name goes to Megatron-LM, as `--transformer-impl local`
# does where Transformer Engine is not installed.
set -euo pipefail
: "${MEGATRON_LM:?a checkout of Megatron-LM}" "${DATA:?prefix of a tokenised text}" "${SAVE:?a folder}"
PYTHON=${PYTHON:-python} MINUTES=${MINUTES:-9} SEEDS=${SEEDS:-1 2 3}
NCA=${NCA:-nca:tokens=164M,batch=32} NCA_STEPS=${NCA_STEPS:-5005} TEXT_STEPS=${TEXT_STEPS:-3815}

if ! [[ $MINUTES =~ ^[0-9]+$ ]]; then
    echo "one_gpu.sh: MINUTES=$MINUTES: give whole minutes" >&2
    exit 2
fi

train() { # RUN STEPS SEED DATA-PATH... [FLAG...]: go on with a run for the minutes that are left
    local run=$1 steps=$2 seed=$3
    local data=("${@:4}")
    "$PYTHON" -m torch.distributed.run --nproc-per-node 1 -m "${MODULE:-megatron_nca}" "$MEGATRON_LM/pretrain_gpt.py" \
        --data-path "${data[@]}" --split 99,1,0 --tokenizer-type HuggingFaceTokenizer --tokenizer-model "${TOKENIZER:-gpt2}" \
        --num-layers 8 --hidden-size 512 --ffn-hidden-size 1408 --num-attention-heads 8 --swiglu --normalization RMSNorm \
        --position-embedding-type rope --disable-bias-linear --untie-embeddings-and-output-weights \
        --attention-dropout 0 --hidden-dropout 0 --seq-length 1024 --max-position-embeddings 1024 \
        --micro-batch-size 16 --global-batch-size 256 --train-iters "$steps" --seed "$seed" \
        --lr 1e-3 --min-lr 1e-4 --lr-decay-style cosine --lr-warmup-fraction 0.1 --weight-decay 0.1 --clip-grad 1.0 --bf16 \
        --log-interval 50 --eval-interval 250 --eval-iters 20 --save "$SAVE/$run" --load "$SAVE/$run" --save-interval 1000 \
        --exit-duration-in-mins "$left" "${extra[@]}" 2>&1 | tee -a "$SAVE/$run.log"
}

reached() { # RUN: its last saved iteration
    cat "$SAVE/$1/latest_checkpointed_iteration.txt" 2> /dev/null || echo 0
}

export CUDA_DEVICE_MAX_CONNECTIONS=1
extra=("$@") nca=() text=()
mkdir -p "$SAVE"
for seed in $SEEDS; do
    for arm in nca text; do
        steps=$TEXT_STEPS data=("$DATA")
        if [ $arm = nca ]; then steps=$((NCA_STEPS + TEXT_STEPS)) data=("$NCA" "$DATA" --nca-lr 3e-4 --nca-valid 10); fi
        run=$arm-$seed left=$((MINUTES - SECONDS / 60))
        if [ "$(reached "$run")" -lt "$steps" ] && [ $left -gt 0 ]; then train "$run" $steps "$seed" "${data[@]}"; fi
        if [ "$(reached "$run")" -lt "$steps" ]; then
            echo "one_gpu.sh: $run is at iteration $(reached "$run") of $steps; start this again to go on"
            exit
        fi
    done
    nca+=("$SAVE/nca-$seed.log") text+=("$SAVE/text-$seed.log")
done
"$PYTHON" -m megatron_nca.cli compare --paired --run "${nca[@]}" --baseline "${text[@]}" \
    > "$SAVE/comparison.partial"
mv "$SAVE/comparison.partial" "$SAVE/comparison.txt"
cat "$SAVE/comparison.txt"
