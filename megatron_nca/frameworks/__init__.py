"""Adapters: each translates a framework's moments into calls of the data and training packages, and holds no logic."""
