"""As much of Lightning as NeMo's adapter touches."""
