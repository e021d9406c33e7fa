"""``python -m megatron_nca.cli``, for where the ``megatron-nca`` script is not on the path."""

from megatron_nca.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
