import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.telemetry.logs import Format, configure, redact


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("httpx", "httpcore", "kafka", "uvicorn.access")
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_event_and_its_fields() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    structlog.get_logger().info("drift confirmed", stream="digits", run_length=6)
    (line,) = lines(out)
    assert line.pop("timestamp")
    assert line == {
        "event": "drift confirmed",
        "stream": "digits",
        "run_length": 6,
        "level": "info",
    }


def test_what_libraries_log_looks_the_same() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    logging.getLogger("uvicorn.error").warning("port %d is busy", 80)
    (line,) = lines(out)
    assert (line["event"], line["level"]) == ("port 80 is busy", "warning")


def test_lines_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    configure("json", "warning", out)
    structlog.get_logger().info("a")
    logging.getLogger("x").info("b")
    structlog.get_logger().warning("c")
    assert [line["event"] for line in lines(out)] == ["c"]


def test_every_request_of_a_client_library_is_not_worth_a_line() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    logging.getLogger("httpx").info("HTTP Request: POST https://example.com/token")
    assert lines(out) == []


def test_auto_is_readable_on_a_terminal_and_json_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    configure(Format.AUTO, "info", terminal)
    structlog.get_logger().info("started", streams=2)
    configure(Format.AUTO, "info", file)
    structlog.get_logger().info("started", streams=2)
    assert "started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert lines(file)[0]["streams"] == 2


def fail() -> None:
    raise RuntimeError("cannot reach https://me:hunter2@example.com")


def test_an_exception_is_one_line_and_holds_no_secret() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed too")
    assert len(lines(out)) == 2
    assert all("RuntimeError" in str(line["exception"]) for line in lines(out))
    assert "hunter2" not in out.getvalue()


def test_an_exception_on_a_terminal_shows_no_local_variables() -> None:
    out = Terminal()
    configure("console", "info", out)
    secret_of_the_function = "hunter2"
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError" in out.getvalue()
    assert secret_of_the_function not in out.getvalue()


def test_configuring_twice_does_not_write_twice() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    configure("json", "info", out)
    structlog.get_logger().info("once")
    assert len(lines(out)) == 1


@pytest.mark.parametrize(
    ("format_", "level", "message"),
    [("xml", "info", "xml"), ("json", "loud", "level must be debug, info, warning or error")],
)
def test_an_unknown_setting_is_refused(format_: str, level: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(format_, level, io.StringIO())


@pytest.mark.parametrize(
    "fields",
    [
        {"secret": "hunter2"},
        {"http_token": "hunter2"},
        {"password": 12345678},
        {"Authorization": "Bearer hunter2"},
        {"headers": {"webhook-signature": "v1,hunter2"}},
        {"nested": [{"api_key": "hunter2"}, ("x", {"apikey": b"hunter2"})]},
        {"event": "sent with Authorization: Bearer hunter2"},
        {"reason": "the secret is whsec_hunter2hunter2="},
        {"url": "postgresql+psycopg://shiftwatch:hunter2@db/shiftwatch"},
        {"error": RuntimeError("https://me:hunter2@example.com")},
        {"deep": {"a": {"b": {"c": {"d": {"e": {"f": {"g": "https://a:hunter2@b"}}}}}}}},
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(fields: dict[str, object]) -> None:
    shown = json.dumps(redact(None, "info", dict(fields)), default=str)
    assert "hunter2" not in shown
    assert "12345678" not in shown
    assert "[redacted]" in shown


def test_what_is_no_secret_stays() -> None:
    fields = {
        "event": "incident confirmed",
        "n": 3,
        "ratio": 0.5,
        "ok": True,
        "token": None,
        "url": "https://example.com/a@b",
        "factors": ["concept"],
    }
    assert redact(None, "info", dict(fields)) == fields
