"""What a spawned process runs in place of the script it was spawned from; see `processes`."""

from megatron_nca.rehearsal import stand_in

stand_in.install()
