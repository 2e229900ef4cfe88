"""One thin file per command: it reads the command line, calls one room, prints. Nothing imports this floor."""
