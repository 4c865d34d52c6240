"""The remote of finished artifacts: pushed and pulled by fingerprint, verified by hash."""

from zoo.remote.address import Address, parse_address
from zoo.remote.contents import Index, Kept, members_of, named_there, read_index, read_kept
from zoo.remote.files import RemoteFiles
from zoo.remote.known import pull_known
from zoo.remote.pull import pull_artifact, pull_earlier
from zoo.remote.push import Bar, push_artifact, push_earlier

__all__ = [
    "Address",
    "Bar",
    "Index",
    "Kept",
    "RemoteFiles",
    "members_of",
    "named_there",
    "parse_address",
    "pull_artifact",
    "pull_earlier",
    "pull_known",
    "push_artifact",
    "push_earlier",
    "read_index",
    "read_kept",
]
