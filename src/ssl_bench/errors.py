"""Mistakes a user can mend, each one sentence saying what is wrong, where, and what to do; and exit statuses."""

MISTAKE = 2
TRY_AGAIN = 75  # the system's word for a failure that trying again may mend
SIGNALLED = 128  # a shell's exit status for a signal is this and its number


class UserError(Exception):
    """Shown as one line without a traceback; the program then ends with ``status``."""

    status = MISTAKE
