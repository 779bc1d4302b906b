"""One thin module a command, each with `run(name, args) -> exit status`."""
