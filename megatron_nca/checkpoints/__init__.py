"""Megatron-LM's checkpoints on disk, read and written without Megatron-LM, a process group, a GPU or a model.

``transfer`` makes the start of a text run of the checkpoint of an NCA run. The formats are ``torch`` (a file a model-parallel
rank) and ``torch_dist`` (torch.distributed.checkpoint's files, which any parallel layout reads).
"""
