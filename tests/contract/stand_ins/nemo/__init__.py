"""As much of NeMo as its adapter touches."""
