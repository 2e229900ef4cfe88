"""Mistakes a user can mend, each one sentence saying what is wrong, where, and what to do; and exit statuses."""

import errno

MISTAKE = 2
NO_ROOM = 74  # the system's code for reading or writing that failed; here, because the disk is full
TRY_AGAIN = 75  # the system's code for a failure that trying again may mend
SIGNALLED = 128  # a shell's exit status for a signal is this and its number


class UserError(Exception):
    """Shown as one line without a traceback; the program then ends with ``status``, that of the class unless given."""

    status = MISTAKE

    def __init__(self, sentence: str = "", status: int | None = None) -> None:
        super().__init__(sentence)
        if status is not None:
            self.status = status


def is_full(error: BaseException) -> bool:
    """Whether the system refused to write because there is no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
