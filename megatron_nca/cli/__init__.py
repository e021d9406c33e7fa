"""``megatron-nca``: look at the data, choose a band, check a plan, build files - before a GPU hour is spent.

A subcommand is one module with ``add_parser(subparsers)`` and ``run(args) -> int``; ``main`` finds it by its name.
"""
