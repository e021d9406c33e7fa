"""Why a test may be left out in CI: each reason, and where it is run instead. A skip for any other reason fails the run there.

A reason is a regular expression over what pytest prints for a skipped test.
"""

ALLOWED = {
    r"MEGATRON_LM names no checkout of Megatron-LM|needs a checkout of Megatron-LM: set MEGATRON_LM":
        "Megatron-LM is on no package index; MEGATRON_LM=... make test",
    r"needs NeMo 2\.7; make test-nemo brings it": "NeMo wants another Megatron-Core; make test-nemo",
    r"needs Megatron-Bridge; make test-bridge brings it": "Bridge wants packages of its own; make test-bridge, test-bridge-0.6",
    r"transformers is not installed": "pip install transformers; it is no dependency, and its tests want a checkout too",
    r"a small file system cannot be mounted here": "a full disk; mounting wants root",
    r"root may write everywhere": "a folder that may not be written; make test as any other user",
    r"a SLURM cluster needs": "a cluster needs root and SLURM's packages; make test-slurm",
    r"compiled alone, since [\w.]+ is not installed here": "a block for NeMo or Bridge; make test-nemo, test-bridge",
    r"not a moment of a loop of one's own": "the scenario is of a framework's moment, and runs on those",
    r"Lightning skips no steps": "the scenario is of --iterations-to-skip",
    r"got empty parameter set for \(block\)": "the docs have no block of that kind",
    r"since Megatron-Core 0\.18": "CI has 0.16.1; the same test runs with 0.19 on Python 3.12",
    r"Megatron-FSDP as it is since Megatron-Core 0\.16": "before that its launches are Megatron-LM's experiments",
    r"needs Chromium": "the browser cannot be had on some machines; .ci/run installs it where it can",
    r"hadolint is not installed": "a binary in a wheel, which not every machine has one for; make lint runs it",
    r"Transformer Engine's Python is not installed; make test-te brings it": "it wants packages of its own; make test-te",
    r"is not installed; its sizes need not be right here": "pip install zlib-ng isal; without zlib at all it runs everywhere",
    r"Megatron-Core's fused MLP makes its operations at the first step": "there is nothing to look at before it",
}  # fmt: skip
