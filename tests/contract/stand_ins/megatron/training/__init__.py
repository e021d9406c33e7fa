"""As much of Megatron-LM's training package as its adapter touches."""
