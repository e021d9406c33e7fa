"""Megatron-Core's side: entry grammar, schedule, vocabulary, datasets and the hook into the dataset builder."""
