"""The one exception for errors that users cause.

It is one line that names the row, key or file, and the mend.
"""


class ZooError(Exception):
    """Bad input or an unusable machine.

    The command lines print it as `error: ...` and exit with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
