"""As much of Megatron-Bridge as its adapter touches."""
