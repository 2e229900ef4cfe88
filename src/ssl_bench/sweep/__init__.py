"""Many runs of a table or figure, one process each: skipped, resumed, retried."""
