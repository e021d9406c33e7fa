"""A whole pre-training in minutes: neural cellular automata, then text, on Megatron-Core itself, CPU or GPU.

It trains one small GPT twice from the same seed, with and without the NCA phase, on the same text samples in the same order,
and compares their validation loss. `python -m examples.quickstart --help` lists the knobs.

| file | what lives there |
|---|---|
| `settings`, `cli` | what decides the result; what only says where and how to run; the command line |
| `folder`, `files` | the output folder: its lock, its settings, files that appear whole or not at all |
| `corpus`, `tokenizer`, `text` | the standard library's sources, a byte-level BPE, Megatron's `.bin`/`.idx` |
| `world` | device, process group, random seeds |
| `course`, `data`, `sampler` | how many samples of what; the datasets; in which order they are read |
| `model`, `optimization` | Megatron's GPTModel and DistributedDataParallel; its optimizer and scheduler |
| `forward`, `train`, `evaluation`, `progress` | a global batch; the training loop; validation; the bar |
| `checkpoint`, `journal` | what survives a kill |
| `results`, `report`, `plots` | both runs side by side |
"""
