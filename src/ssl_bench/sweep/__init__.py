"""Many runs of a table or figure, one process each: skipped, gone on with, retried; see ``__main__``."""
