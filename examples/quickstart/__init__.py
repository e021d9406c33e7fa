"""NCA first, then text: a pre-training on Megatron-Core that a laptop finishes in ten minutes, beside the same run without NCA.

`train.py` is the loop, from top to bottom; `model.py` the model, optimizer and schedule; `text.py` text and tokenizer;
`report.py` the picture and the closing table.
"""
