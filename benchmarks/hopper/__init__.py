"""The first hour on a Hopper: `pack` on a machine with a network, `stages` on a bare one with the GPU."""
