#!/bin/bash
# Twenty steps of Megatron-LM, ten of NCA and ten of text, to see that the pieces fit: with a GPU on it, without one on the CPU.
#
#   MEGATRON_LM=/opt/Megatron-LM examples/smoke/train.sh
#
# The text is made by arithmetic, a byte a token, so that the losses are the same everywhere. docs/smoke-test.md has the log.
set -euo pipefail
: "${MEGATRON_LM:?a checkout of Megatron-LM}"
PYTHON=${PYTHON:-python} RUN=${RUN:-$(mktemp -d)}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if nvidia-smi > /dev/null 2>&1; then
    module=megatron_nca flags=(--bf16)
else
    # Megatron-LM's loop on a CPU that stands in for the GPU, without what only a GPU has.
    module=megatron_nca.rehearsal
    flags=(--transformer-impl local --distributed-backend gloo --attention-backend unfused --no-persist-layer-norm
        --no-gradient-accumulation-fusion --no-masked-softmax-fusion --no-bias-gelu-fusion --no-rope-fusion)
fi

"$PYTHON" - "$RUN/text" <<'PYTHON'
import sys
from pathlib import Path

from megatron_nca.rehearsal.corpus import write_corpus

documents = (bytes(97 + (7 * start + place * place) % 13 for place in range(400)) for start in range(40))
write_corpus(Path(sys.argv[1]), documents)
PYTHON

export CUDA_DEVICE_MAX_CONNECTIONS=1
exec "$PYTHON" -m torch.distributed.run --nproc-per-node 1 -m "$module" "$MEGATRON_LM/pretrain_gpt.py" "${flags[@]}" \
    --data-path nca:tokens=5120,grid=6,colors=3,gzip=none "$RUN/text" --nca-lr 2e-3 \
    --tokenizer-type NullTokenizer --vocab-size 255 --make-vocab-size-divisible-by 64 --split 90,5,5 \
    --num-layers 2 --hidden-size 64 --num-attention-heads 4 --seq-length 64 --max-position-embeddings 64 \
    --micro-batch-size 4 --global-batch-size 8 --train-iters 20 --lr 1e-3 --min-lr 1e-4 --lr-decay-style cosine \
    --lr-warmup-iters 2 --seed 1234 --log-interval 1 --eval-interval 100 --eval-iters 1
