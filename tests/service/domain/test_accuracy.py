import pytest

from service.domain.accuracy import worse


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((950, 1000), (940, 1000), False),  # within the margin
        ((950, 1000), (900, 1000), True),
        ((95, 100), (90, 100), False),  # the same shares on too few predictions show nothing
        ((950, 1000), (990, 1000), False),
        (None, (0, 100), False),
        ((100, 100), (0, 0), False),
    ],
)
def test_only_a_loss_beyond_chance_and_margin_counts(
    before: tuple[int, int] | None, now: tuple[int, int], expected: bool
) -> None:
    assert worse(before, now) is expected
