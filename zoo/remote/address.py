"""The address of a remote, without secrets: sftp, S3, or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from zoo.errors import ZooError

FORMS = "sftp://host/path, s3://bucket/prefix or file:///folder"
SCHEMES = ("sftp", "s3", "file")


@dataclass(frozen=True)
class Address:
    """Where a remote is; `user` and `port` are empty where ssh's own settings say them."""

    scheme: str
    host: str
    path: str
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{self.host}{port}/{self.path.lstrip('/')}"


def parse_address(text: str) -> Address:
    """The address that a text says.

    ZooError, which shows no secret, where it says none that can be used.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ZooError(f"ZOO_REMOTE: not an address; give {FORMS}") from error
    shown = text if "@" not in text else f"{parts.scheme}:..."  # of one with a slash too few, what is a password is not known
    if parts.password is not None:
        mend = "use a key of ssh or its agent" if parts.scheme == "sftp" else "use the AWS settings for that"
        raise ZooError(f"ZOO_REMOTE: a password in an address ends up in logs; take it out, and {mend}")
    if parts.scheme not in SCHEMES:
        raise ZooError(f"ZOO_REMOTE: `{parts.scheme or shown}` is no address of a remote; give {FORMS}")
    if parts.query or parts.fragment:
        raise ZooError(f"ZOO_REMOTE: nothing may follow the path, and `?` and `#` are written %3F and %23; give {FORMS}")
    path = str(PurePosixPath("/" + unquote(parts.path).strip("/")))
    if ".." in PurePosixPath(path).parts:
        raise ZooError("ZOO_REMOTE: `..` in the path; give the folder itself")
    if (parts.scheme == "file") == bool(parts.hostname) or (parts.scheme == "s3" and (parts.username or port)):
        raise ZooError(
            f"ZOO_REMOTE: `{shown}` names no {'folder' if parts.scheme == 'file' else 'host or bucket'}; give {FORMS}"
        )
    if path == "/" and parts.scheme != "s3":
        raise ZooError(f"ZOO_REMOTE: `{text}` has no path; give a folder there, as {parts.scheme}://{parts.netloc}/shared/zoo")
    return Address(parts.scheme, parts.hostname or "", path, parts.username or "", port)
