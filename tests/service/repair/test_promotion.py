from pathlib import Path

import pytest

from models.registry import Registry
from service.repair.promotion import promote, rollback
from service.store.store import Store


def test_what_is_not_there_cannot_be_promoted_or_gone_back_to(tmp_path: Path) -> None:
    store, registry = Store(f"sqlite:///{tmp_path}/s.db", lambda: 0.0), Registry(tmp_path / "m")
    with pytest.raises(LookupError, match="s: there is no version 3"):
        promote(store, registry, "s", 3, "by hand")
    with pytest.raises(LookupError, match="no former champion"):
        rollback(store, registry, "s", "by hand")
    assert store.champion("s") is None
    store.close()
