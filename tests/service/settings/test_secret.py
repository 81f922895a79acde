from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from service.settings.file import FieldError
from service.settings.secret import check_either, web_address


class Section(BaseModel):
    token: SecretStr | None = None
    token_file: Path | None = None


NONE = Section()
GIVEN = Section(token=SecretStr("t"))
IN_FILE = Section(token_file=Path("t"))
BOTH = Section(token=SecretStr("t"), token_file=Path("t"))


@pytest.mark.parametrize(
    ("section", "is_needed", "has"),
    [
        (NONE, False, False),
        (GIVEN, False, True),
        (GIVEN, True, True),
        (IN_FILE, False, True),
        (IN_FILE, True, True),
    ],
)
def test_a_secret_stands_in_one_place(section: Section, is_needed: bool, has: bool) -> None:
    assert check_either(section, "token", is_needed=is_needed) is has


@pytest.mark.parametrize(
    ("section", "is_needed", "field", "got"),
    [
        (BOTH, False, "token_file", "both"),
        (BOTH, True, "token_file", "both"),
        (NONE, True, "token", "none"),
    ],
)
def test_a_secret_in_two_places_or_none_is_refused(
    section: Section, is_needed: bool, field: str, got: str
) -> None:
    with pytest.raises(FieldError, match=f"either token or token_file, got {got}") as caught:
        check_either(section, "token", is_needed=is_needed)
    assert caught.value.location == (field,)


@pytest.mark.parametrize("url", ["https://h", "http://h:8080/a?b=c"])
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert web_address(url) == url


@pytest.mark.parametrize(
    "url", ["ftp://h", "h", "https://", "http://[", "https://me@h", "https://me:hunter2@h", ""]
)
def test_an_address_with_a_login_or_without_a_host_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="expected https:// or http:// and a host") as caught:
        web_address(url)
    assert "hunter2" not in str(caught.value)
