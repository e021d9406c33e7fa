#!/usr/bin/env bash
# The published run (arXiv:2603.10055) on Megatron-LM: 164M NCA tokens in batches of 32 x 1,024, then text in batches of 512 x 1,024.
#
#   MEGATRON_LM=/opt/Megatron-LM DATA=/data/owt_text_document SAVE=/checkpoints examples/paper/megatron_lm.sh
#   NCA= SAVE=/checkpoints-scratch ... examples/paper/megatron_lm.sh      # the other arm: the same text alone
#
# A step is a batch: 5,005 of NCA, then TEXT_STEPS of text; 17,166 are 9B tokens, which is our choice and not the paper's, as is the
# MLP's width, which makes 1.6B parameters. Started again, it goes on from its last checkpoint.
set -euo pipefail

NCA=${NCA-nca:tokens=164M,batch=32}
TEXT_STEPS=${TEXT_STEPS:-17166}
NCA_STEPS=${NCA:+${NCA_STEPS:-5005}}

torchrun --nproc-per-node "${GPUS:-8}" -m megatron_nca "${MEGATRON_LM:-.}/pretrain_gpt.py" \
    --data-path $NCA "$DATA" \
    --split 99,1,0 --tokenizer-type HuggingFaceTokenizer --tokenizer-model "${TOKENIZER:-gpt2}" \
    --num-layers 24 --hidden-size 2048 --ffn-hidden-size 8192 --num-attention-heads 32 --swiglu --normalization RMSNorm \
    --position-embedding-type rope --disable-bias-linear --untie-embeddings-and-output-weights \
    --attention-dropout 0 --hidden-dropout 0 --seq-length 1024 --max-position-embeddings 1024 \
    --micro-batch-size 4 --global-batch-size 512 --train-iters $((TEXT_STEPS + ${NCA_STEPS:-0})) \
    --lr 5e-4 --min-lr 5e-5 --lr-decay-style cosine --lr-warmup-fraction 0.1 --weight-decay 0.1 --clip-grad 1.0 \
    ${NCA:+--nca-lr 1e-4 --nca-valid 10} \
    --bf16 --use-distributed-optimizer --eval-interval 500 --eval-iters 20 \
    --save "$SAVE" --load "$SAVE" --save-interval 500 "$@"
