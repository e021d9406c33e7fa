"""Launches of Megatron-Bridge on the CPU stand-in: their config read, scaled down, trained, killed and resumed."""
