"""Commands that print the tables of docs/performance.md; ratios are measured side by side in one run."""
