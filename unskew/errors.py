"""The one error that is the user's to mend."""


class UserError(Exception):
    """What was given cannot be used; programs print the message and exit with code 2.

    The message says what failed, what was given, what is allowed, and what to do next.
    """
