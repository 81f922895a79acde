"""Making a version the champion by hand; a running service takes it over at its next write."""

from __future__ import annotations

from models.registry import Registry, RegistryError
from service.domain.champion import Champion
from service.store import states as checkpoint
from service.store.store import Store


def promote(store: Store, registry: Registry, stream: str, version: int, reason: str) -> Champion:
    """Make a version of a stream's model the champion.

    Raises
    ------
    LookupError
        If there is no such version.
    ValueError
        If it is the champion already.
    """
    champion = store.champion(stream)
    if champion is not None and champion.version == version:
        raise ValueError(f"{stream}: version {version} is the champion already")
    try:
        registry.get(stream, version)
    except (RegistryError, OSError) as error:
        raise LookupError(f"{stream}: there is no version {version} to promote: {error}") from error
    state = store.state(stream)
    index = 0 if state is None else int(checkpoint.loads(state)["monitor"]["n_seen"])
    with store.transaction() as tx:
        return tx.set_champion(stream, version, reason, index)


def rollback(store: Store, registry: Registry, stream: str, reason: str) -> Champion:
    """Make the champion before the present one the champion again.

    Raises
    ------
    LookupError
        If there was none.
    """
    history = store.champion_history(stream)
    former = [c.version for c in history if c.version != history[-1].version]
    if not former:
        raise LookupError(f"{stream}: there is no former champion to go back to")
    return promote(store, registry, stream, former[-1], reason)
