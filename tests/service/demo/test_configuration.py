"""The demo's configuration, whole and in part."""

from __future__ import annotations

from pathlib import Path

from service.demo.configuration import demo_settings
from service.demo.source import PIXELS, STREAMS


def test_the_service_of_one_stream_is_configured_as_that_of_both(tmp_path: Path) -> None:
    given = (tmp_path, 3, 0, "whsec_" + "A" * 32, "http://127.0.0.1:1/hook")
    both, one = demo_settings(*given), demo_settings(*given, names=(PIXELS,))
    assert {stream.name for stream in both.streams} == set(STREAMS)
    assert [*one.streams] == [stream for stream in both.streams if stream.name == PIXELS]
    assert one.model_copy(update={"streams": both.streams}) == both
