"""The subcommands: each reads its arguments, does its work by what lies below, and prints."""
