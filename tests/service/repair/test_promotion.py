from collections.abc import Sequence
from pathlib import Path

import pytest

from models.registry import Registry
from service.domain.champion import Champion
from service.repair.promotion import check_promotion, former, promote, rollback
from service.store.store import Store


def history(*versions: int) -> list[Champion]:
    return [Champion("s", n, v, "", 0, 0.0) for n, v in enumerate(versions, 1)]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [((1, 2), 1), ((1, 2, 3), 2), ((1, 2, 2), 1), ((1, 2, 1), 2), ((1, 2, 3, 1), 3)],
)
def test_a_roll_back_goes_to_the_last_other_champion(
    versions: Sequence[int], expected: int
) -> None:
    assert former("s", history(*versions)) == expected


@pytest.mark.parametrize("versions", [(), (1,), (2, 2)])
def test_without_another_champion_there_is_no_way_back(versions: Sequence[int]) -> None:
    with pytest.raises(LookupError, match="s: there is no former champion"):
        former("s", history(*versions))


@pytest.mark.parametrize(
    ("version", "versions", "published", "error", "says"),
    [
        (2, (1, 2), {1, 2}, ValueError, "version 2 is the champion already"),
        (3, (1, 2), {1, 2}, LookupError, "no version 3 to promote, known versions: 1, 2"),
        (1, (), (), LookupError, "no version 1 to promote, known versions: none"),
    ],
)
def test_what_cannot_be_promoted_says_why(
    version: int, versions: Sequence[int], published: set[int], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        check_promotion("s", version, history(*versions), published)


@pytest.mark.parametrize("version", [1, 3])
def test_any_other_published_version_can_be_promoted(version: int) -> None:
    check_promotion("s", version, history(1, 2), {1, 2, 3})


def test_what_is_not_there_cannot_be_promoted_or_gone_back_to(tmp_path: Path) -> None:
    store, registry = Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0), Registry(tmp_path / "m")
    with pytest.raises(LookupError, match="s: there is no version 3"):
        promote(store, registry, "s", 3, "by hand")
    with pytest.raises(LookupError, match="no former champion"):
        rollback(store, registry, "s", "by hand")
    assert store.champion("s") is None
    store.close()
