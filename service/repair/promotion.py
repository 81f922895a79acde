"""Making a version the champion by hand; a running service takes it over at its next write."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from models.registry import Registry, RegistryError
from service.domain.champion import Champion
from service.store import states as checkpoint
from service.store.store import Store


def promote(store: Store, registry: Registry, stream: str, version: int, reason: str) -> Champion:
    """Make a version of a stream's model the champion.

    Raises
    ------
    LookupError
        If there is no such version, or its files are not what was published.
    ValueError
        If it is the champion already.
    """
    check_promotion(stream, version, store.champion_history(stream), registry.versions(stream))
    try:
        registry.get(stream, version)
    except (RegistryError, OSError) as error:
        raise LookupError(f"{stream}: version {version} cannot be promoted: {error}") from error
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
    return promote(store, registry, stream, former(stream, store.champion_history(stream)), reason)


def check_promotion(
    stream: str, version: int, history: Sequence[Champion], published: Collection[int]
) -> None:
    """Raise where a version cannot become champion: `ValueError` if it is, `LookupError` if it
    does not exist.

    Parameters
    ----------
    stream, version
        What is to be promoted.
    history
        The stream's champions in order.
    published
        The versions that there are.
    """
    if history and history[-1].version == version:
        raise ValueError(f"{stream}: version {version} is the champion already")
    if version not in published:
        known = ", ".join(map(str, sorted(published))) or "none"
        raise LookupError(
            f"{stream}: there is no version {version} to promote, known versions: {known}"
        )


def former(stream: str, history: Sequence[Champion]) -> int:
    """The version to go back to: the last champion that was another one than the present.

    Raises
    ------
    LookupError
        If there was none.
    """
    for champion in reversed(history):
        if champion.version != history[-1].version:
            return champion.version
    raise LookupError(f"{stream}: there is no former champion to go back to")
