"""`zoo promote`: make a scored checkpoint the champion of its entry."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.tracking.models import CANDIDATE, CHAMPION, give_alias, members_of

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


def promote(name: str, *, version: str | None = None, alias: str = CHAMPION) -> str:
    """Give an entry's registered version the alias `champion` (or another).

    Returns the version's number. Without `version` the candidate, which is the checkpoint that was scored last. ZooError where
    there is no such version, or the tracking store cannot be reached.
    """
    return str(_ask(lambda client: _promote(client, name, version, alias), f"zoo promote {name}"))


def members_with_alias(alias: str) -> dict[str, str]:
    """Members by alias.

    Name (`entry@variant`) -> fingerprint of the checkpoint that the alias points to. A score table belongs to the alias if both
    its member's name and its checkpoint match. ZooError where no registered model has the alias, or the tracking store cannot
    be reached.
    """
    found: dict[str, str] = _ask(lambda client: _members(client, alias), "ensemble build")
    if not found:
        raise ZooError(f"no scored entry has the alias {alias!r}; give it with `zoo promote NAME --alias {alias}`")
    return found


def _ask(question: Any, command: str) -> Any:
    """What a question to the tracking store answers; its failure as one line."""
    import logging

    from zoo.settings import home, store_folder
    from zoo.store import locked
    from zoo.tracking.client.connection import connect
    from zoo.tracking.sync import catch_up, unusable

    try:
        catch_up(store_folder())
        with locked(home(), "tracking"):
            return question(connect())
    except ZooError:
        raise
    except Exception as error:
        logging.getLogger("zoo").debug("tracking failed", exc_info=True)
        raise unusable(error, command) from None


def _promote(client: MlflowClient, name: str, version: str | None, alias: str) -> str:
    known = {str(v.version): v for v in client.search_model_versions(f"name = '{_quotable(name)}'")}
    if not known:
        models = ", ".join(sorted(m.name for m in client.search_registered_models())) or "none yet"
        raise ZooError(f"no scored checkpoint of {name!r} is registered (registered: {models}); score it with `zoo run {name}`")
    if version is None:
        aliases = client.get_registered_model(name).aliases
        version = str(aliases.get(CANDIDATE) or max(known, key=int))
    if version not in known:
        raise ZooError(f"{name}: no version {version}; it has {', '.join(sorted(known, key=int))}")
    try:
        give_alias(client, name, alias, known[version], datetime.datetime.now(datetime.UTC).isoformat())
    except Exception as error:
        if "alias" not in str(error).lower():
            raise
        raise ZooError(f"--alias {alias}: use letters, digits, '-' and '_', and neither `latest` nor v1, v2, ...") from error
    return version


def _members(client: MlflowClient, alias: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for model in client.search_registered_models():
        if number := model.aliases.get(alias):
            tags = client.get_model_version(model.name, str(number)).tags
            found |= dict.fromkeys(sorted(members_of(tags)), tags.get("zoo.checkpoint", ""))
    return found


def _quotable(name: str) -> str:
    return name.replace("'", "")
