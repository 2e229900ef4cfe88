"""Mistakes a user can mend: one sentence saying what is wrong, where, and what to do."""


class UserError(Exception):
    """Shown as one line without a traceback; the program then ends with ``status``."""

    status = 2
