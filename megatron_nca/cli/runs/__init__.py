"""Runs that have been: their losses read from what a framework has written, and compared."""
