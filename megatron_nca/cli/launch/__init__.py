"""A launch as it is typed: its data path, its learning rate, its tokenizer, and what its checkpoint has read."""
