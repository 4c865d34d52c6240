"""What goes wrong with a remote's server or the way to it, in one line with the mend."""

from __future__ import annotations

import errno

from zoo.errors import ZooError

AGAIN = "the same command goes on from there"
# As paramiko says that a connection has ended since, by an OSError without a number: where it notices first differs by moments.
ENDED = ("Socket is closed", "File is closed", "Connection lost", "No connection")


class Unreachable(ZooError):
    """A remote that does not answer, or no longer: what was asked of it may be asked again."""


def fault_of(error: Exception, where: str) -> ZooError | None:
    """What a fault of a server, or of the way to it, means for people.

    None for one that no server causes.
    """
    line = _line_of(error)
    if line is None:
        return None
    kind = Unreachable if "cannot be reached" in line else ZooError
    return kind(f"{where}: {line}", exit_code=1)


def _line_of(error: Exception) -> str | None:
    module, kind, first = type(error).__module__.partition(".")[0], type(error).__name__, _first_line(error)
    if isinstance(error, ZooError):
        return None
    if kind in ("AuthenticationException", "PasswordRequiredException", "BadAuthenticationType", "UnableToAuthenticate"):
        return "no key opens it; load one with `ssh-add`, or name it in ~/.ssh/config (User, IdentityFile)"
    if kind in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"):
        return f"AWS's settings have no credentials for it ({first}); see `aws configure`, or set AWS_PROFILE"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space is left there; make room, and {AGAIN}"
    if isinstance(error, FileNotFoundError):
        return "is not there"
    if isinstance(error, PermissionError):
        return f"may not be read or written ({first}); see who owns it there, and what your key or account may do"
    is_gone = isinstance(error, EOFError | TimeoutError | ConnectionError) or (isinstance(error, OSError) and first in ENDED)
    if is_gone or module in ("paramiko", "botocore", "aiobotocore"):
        return f"cannot be reached, or no longer ({first}); {AGAIN}"
    if kind in ("gaierror", "NoValidConnectionsError"):
        return f"cannot be reached ({first}); see the name, the port and the network"
    if isinstance(error, OSError) and error.errno is None and first == "Failure":
        return f"the server could not do it, and says no more than `Failure`: often its disk is full; make room, and {AGAIN}"
    if isinstance(error, OSError):
        return f"{first}; {AGAIN}"
    return None


def _first_line(error: Exception) -> str:
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
    return text.splitlines()[0][:200].rstrip(".")
