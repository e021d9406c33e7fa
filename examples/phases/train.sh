#!/usr/bin/env bash
# Three phases in one run of Megatron-LM: NCA in batches of its own, web text and code, and a mixture to anneal on.
#
#   MEGATRON_LM=/opt/Megatron-LM DATA=/data SAVE=/checkpoints examples/phases/train.sh
#
# DATA holds web, code and math as tools/preprocess_data.py writes them (web_text_document and so on). Started again, it goes on
# from its last checkpoint. To change the mixture in mid-run, change the data path and start once with --nca-amend-curriculum.
set -euo pipefail

torchrun --nproc-per-node "${GPUS:-8}" -m megatron_nca "${MEGATRON_LM:-.}/pretrain_gpt.py" \
    --data-path \
        nca:tokens=164M,batch=32 \
        phase:tokens=90B,ramp=10B 0.7 "$DATA/web_text_document" 0.3 "$DATA/code_text_document" \
        phase: 0.4 "$DATA/web_text_document" 0.3 "$DATA/code_text_document" 0.3 "$DATA/math_text_document" \
    --split 99,1,0 --tokenizer-type HuggingFaceTokenizer --tokenizer-model "${TOKENIZER:-gpt2}" \
    --num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 1024 --max-position-embeddings 1024 \
    --micro-batch-size 4 --global-batch-size 512 --train-samples 97656250 \
    --lr 5e-4 --min-lr 5e-5 --lr-decay-style cosine --lr-warmup-fraction 0.01 --nca-lr 1e-4 \
    --bf16 --use-distributed-optimizer --eval-interval 1000 --eval-iters 10 \
    --save "$SAVE" --load "$SAVE" --save-interval 1000 "$@"
