"""What is needed of Megatron, Bridge and NeMo, as protocols: each attribute with what it is and where it comes from.

Only what is always there stands in them. What only some versions or some launches have is read with ``getattr``.
"""
