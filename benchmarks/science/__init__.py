"""Does NCA first help on real text at a laptop's size, and is it the automaton? Seeds, controls and rates, on Megatron-Core.

`python -m benchmarks.science` (or `make science`) trains what `arms.py` lists, two runs at a time, a core each; a result that
is there already, in `results/`, is not made again. `table.py` reads the results.
"""
