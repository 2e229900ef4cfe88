"""How fast are we? Each part of the program against a named baseline, in turn within one process."""
