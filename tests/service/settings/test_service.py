from pathlib import Path
from typing import get_args

import pytest

from detectors.adapters import alibi
from detectors.base import Problem
from models.spec import Family
from models.strategy import Strategy
from service.domain.decision import ActionKind
from service.domain.incident import IncidentState
from service.settings.file import SettingsError
from service.settings.page import describe, reference_page
from service.settings.service import Settings, WebhookSettings, load, loads
from service.settings.stream import ModelSettings, StreamSettings

SMALLEST = "streams: [{name: s, problem: x_to_y}]\n"
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loads(text, "a.yaml", environ)
    return list(caught.value.problems)


def problem(text: str, environ: dict[str, str] | None = None) -> str:
    found = problems(text, environ)
    assert len(found) == 1, found
    return found[0]


def stream(extra: str) -> str:
    """The smallest settings with something in the stream, which begins in line 4."""
    lines = ["streams:", "  - name: s", "    problem: x_to_y", *extra.splitlines()]
    return "\n".join(lines[:3] + [f"    {line}" for line in lines[3:]]) + "\n"


def test_a_name_and_a_problem_are_enough():
    found = loads(SMALLEST)
    only = found.stream("s")
    assert only.problem is Problem.X_TO_Y
    assert only.reference.warm_up == 2000
    assert only.false_alarm_every == 200_000
    assert only.confirm.looks == (250, 500, 1000)
    assert only.model is None
    assert found.store.url == "sqlite:///var/shiftwatch.db"
    assert (found.http.host, found.http.port, found.http.read_token()) == ("127.0.0.1", 8321, None)


def test_everything_can_be_set():
    found = loads(
        stream(
            "classes: [3, 8.0, 'yes']\n"
            "features: {amount: numeric, 3: categorical}\n"
            "reference: {file: train.parquet}\n"
            "on_confirmed: {covariate: alert_only, concept: fine_tune}\n"
            "model: {weights: source, input_size: [48, 64], epochs: 3, approval: manual}\n"
        )
        + "store: {url: 'postgresql+psycopg://u:pw@db/x'}\n"
        "webhooks: [{url: 'https://example.com/hook', secret: whsec_x}]\n"
        "images: {uri_prefixes: ['s3://bucket/']}\n"
        "log: {level: debug}\n"
    )
    only = found.streams[0]
    assert only.classes == ("3", "8", "yes")
    assert only.features == {"amount": "numeric", "3": "categorical"}
    assert only.reference.file == Path("train.parquet")
    assert only.on_confirmed.covariate is ActionKind.ALERT_ONLY
    assert only.model is not None
    assert only.model.input_size == (48, 64)
    assert found.webhooks[0].read_secret() == "whsec_x"


def test_the_direction_of_cause_has_no_default_and_the_message_says_why():
    found = problem("streams:\n  - name: s\n")
    assert found.startswith("a.yaml:2: streams[0].problem: required: ")
    assert "x_to_y if the features decide the label" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("streams: []", "a.yaml:1: streams: "),
        ("store: {}", "a.yaml:1: streams: required"),
        (stream("problm: 1"), "a.yaml:4: streams[0].problm: unknown field; did you mean problem?"),
        (SMALLEST + "htp: {}", "a.yaml:2: htp: unknown field; did you mean http?"),
        (stream("false_alarm_every: 10"), "a.yaml:4: streams[0].false_alarm_every: input should be "
         "greater than or equal to 1000, got 10"),
        (stream("false_alarm_every: '2000'"), "valid integer, got \"2000\""),
        (stream("cool_down: yes"), "valid integer, got true"),
        (stream("confirm:\n  alpha: .nan"), "a.yaml:5: streams[0].confirm.alpha"),
        (stream("confirm:\n  looks: [250, 250]"), "a.yaml:5: streams[0].confirm.looks: expected"),
        (stream("confirm:\n  max_wait: 999"), "a.yaml:5: streams[0].confirm.max_wait: expected at "
         "least the last look (1000), got 999"),
        (stream("reference: {warm_up: 199}"), "200, got 199"),
        (stream("reference: {warm_up: 300, file: x}"), "either warm_up or file, got both"),
        (stream("classes: [yes, no]"), "a.yaml:4: streams[0].classes[0]: expected text or"),
        (stream("classes: [3, '3']"), "expected different classes"),
        (stream("classes: [3]"), "at least 2 items"),
        (stream("features: {a: text}"), "a.yaml:4: streams[0].features.a: input should be"),
        (stream("on_confirmed: {concept: fine_tune}"), "on_confirmed.concept: fine_tune needs"),
        (stream("model: {input_size: [16, 32]}"), "sides of 32 to 1024, got [16, 32]"),
        ("streams: [{name: a/b, problem: x_to_y}]", 'got "a/b"'),
        ("streams: [{name: '..', problem: x_to_y}]", "streams[0].name"),
        ("streams:\n- {name: a, problem: x_to_y}\n- {name: A, problem: y_to_x}\n",
         "a.yaml:3: streams[1].name: expected different names, got 'A' as in streams[0]"),
        (SMALLEST + "http: {host: 0.0.0.0}", "a.yaml:2: http.host: 0.0.0.0 can be reached"),
        (SMALLEST + "http: {token: a, token_file: b}", "either token or token_file, got both"),
        (SMALLEST + "http: {port: 70000}", "65535, got 70000"),
        (SMALLEST + "webhooks: [{url: 'https://x'}]", "webhooks[0].secret: expected either "
         "secret or secret_file, got none"),
        (SMALLEST + "webhooks: [{url: 'ftp://x', secret: s}]", "webhooks[0].url: expected https://"),
        (SMALLEST + "webhooks: [{url: 'http://[', secret: s}]", "webhooks[0].url: expected https://"),
        (SMALLEST + "webhooks: [{url: 'http://x', secret: s, events: [incident.opened]}]",
         "webhooks[0].events[0]: input should be 'incident.suspected'"),
        (SMALLEST + "images: {uri_prefixes: ['s3://bucket']}", "end in '/', got 's3://bucket'"),
        (SMALLEST + "store: {url: mysql://x}", "store.url: expected sqlite:///FILE or postgresql"),
        (SMALLEST + "checkpoint: {every_s: .inf}", "finite"),
        (SMALLEST + "log: 5", "a.yaml:2: log: "),
    ],
)  # fmt: skip
def test_a_problem_names_line_field_value_and_what_is_allowed(text, expected):
    assert expected in problem(text)


def test_a_detector_of_a_missing_extra_is_a_problem_at_the_start(monkeypatch):
    text = stream("detectors: [cusum, alibi_mmd]")
    monkeypatch.setattr(alibi, "is_installed", lambda: False)
    assert problem(text) == (
        "a.yaml:4: streams[0].detectors[1]: alibi_mmd needs alibi-detect: "
        "pip install 'shiftwatch[alibi]'"
    )
    monkeypatch.setattr(alibi, "is_installed", lambda: True)
    assert loads(text).streams[0].detectors[1] == "alibi_mmd"


def test_all_problems_are_told_at_once():
    found = problems("streams:\n- name: s\n  problem: drift\n  cool_down: -1\nseed: x\n")
    assert [line.split(": ")[0] for line in found] == ["a.yaml:3", "a.yaml:4", "a.yaml:5"]


def test_a_host_of_this_machine_needs_no_token_and_others_do_with_http_only():
    for host in ("localhost", "127.0.0.9", "'::1'"):
        loads(SMALLEST + f"http: {{host: {host}}}")
    loads(SMALLEST + "http: {host: 0.0.0.0, token: t}")
    loads(SMALLEST + "http: {host: 0.0.0.0, port: null}")


# -- the environment ---------------------------------------------------------------------------


def test_variables_replace_what_the_file_says():
    text = SMALLEST + "http: {port: 1}\n"
    found = loads(
        text,
        environ={
            "SHIFTWATCH_HTTP__PORT": "9000",
            "SHIFTWATCH_HTTP__TOKEN": "0123",
            "SHIFTWATCH_STORE__URL": "sqlite:///x.db",
            "SHIFTWATCH_SOURCE__PATH": "7",
            "SHIFTWATCH_SOURCE__FOLLOW": "true",
            "SHIFTWATCH_SEED": "7",
            "SHIFTWATCH_IMAGES__URI_PREFIXES": "[s3://a/, s3://b/]",
            "SHIFTWATCH_CONFIG": "no setting",
            "PATH": "/bin",
        },
    )
    assert (found.http.port, found.http.read_token(), found.seed) == (9000, "0123", 7)
    assert (found.source.path, found.source.follow) == (Path("7"), True)
    assert found.store.url == "sqlite:///x.db"
    assert found.images.uri_prefixes == ("s3://a/", "s3://b/")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SHIFTWATCH_HTTP__PORT", "x", "environment SHIFTWATCH_HTTP__PORT: http.port: "),
        ("SHIFTWATCH_HTTP__PROT", "1", "http.prot: unknown field; did you mean port?"),
        ("SHIFTWATCH_HTPP__PORT", "1", "htpp.port: unknown field"),
        ("SHIFTWATCH_SEED", "[", "environment SHIFTWATCH_SEED: expected a YAML value"),
    ],
)
def test_a_problem_with_a_variable_names_it(variable, value, expected):
    assert expected in problem(SMALLEST, {variable: value})


# -- secrets -----------------------------------------------------------------------------------


def test_no_secret_shows_in_settings_or_errors():
    secret = "hunter2"
    text = (
        f"http: {{token: {secret}}}\n"
        f"store: {{url: 'postgresql://u:{secret}@h/d'}}\n"
        f"webhooks: [{{url: 'https://h/{secret}', secret: {secret}}}]\n"
    )
    found = loads(SMALLEST + text)
    assert secret not in repr(found)
    assert secret not in str(found)
    for bad in (
        text.replace("postgresql", "mysql"),
        text.replace("https", "ftp"),
        text.replace("'https://h/", f"'https://{secret}@h/"),
        text.replace("webhooks: [", "webhooks: [7, ").replace("token:", "tokn:"),
        f"http: {{token: [{secret}]}}",
        f"http: {{token: {{a: {secret}}}}}",
        f"webhooks: {{url: {secret}, secret: {secret}}}",
    ):
        assert secret not in "".join(problems(SMALLEST + bad))
    assert secret not in problem(
        SMALLEST + "http: {token_file: x}", {"SHIFTWATCH_HTTP__TOKEN": secret}
    )


def test_secrets_come_from_files_too(tmp_path):
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    found = loads(
        SMALLEST + f"http: {{token_file: {file}}}\n"
        f"webhooks: [{{url: 'https://x', secret_file: {file}}}]\n"
    )
    assert found.http.read_token() == found.webhooks[0].read_secret() == "t0ken"
    file.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        found.http.read_token()
    file.unlink()
    with pytest.raises(SettingsError, match=r"http\.token_file: .* cannot be read"):
        found.http.read_token()


# -- files and documentation -------------------------------------------------------------------


def test_a_file_is_read_with_the_environment_of_the_process(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text(SMALLEST)
    monkeypatch.setenv("SHIFTWATCH_SEED", "5")
    assert load(path).seed == 5
    assert load(path, {}).seed == 0


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(SettingsError, match="expected UTF-8"):
        load(tmp_path / "latin.yaml")


def test_an_unknown_stream_is_named_with_those_that_are_known():
    with pytest.raises(KeyError, match="'t' is no configured stream; known are s"):
        loads(SMALLEST).stream("t")


def test_every_setting_is_described():
    table = describe()
    assert all(line.help and line.type for line in table)
    names = [line.name for line in table]
    assert len(names) == len(set(names))
    assert {"streams[].problem", "streams[].model.epochs", "webhooks[].secret", "seed"} <= {*names}
    looks = next(line for line in table if line.name == "streams[].confirm.looks")
    assert looks.default == "[250, 500, 1000]"


def test_the_page_of_settings_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run `make docs`"


def test_the_page_begins_with_settings_that_work():
    example = reference_page().split("```yaml\n")[1].split("```")[0]
    assert loads(example).stream("payments")


def test_names_of_other_modules_are_the_same_here():
    fields = ModelSettings.model_fields
    assert get_args(fields["family"].annotation) == tuple(str(f) for f in Family)
    assert get_args(fields["strategy"].annotation) == ("auto", *(str(s) for s in Strategy))
    events = get_args(get_args(WebhookSettings.model_fields["events"].annotation)[0])
    assert events == tuple(f"incident.{state}" for state in IncidentState)


def test_settings_cannot_be_changed_and_can_be_made_in_python():
    found = Settings(streams=(StreamSettings(name="s", problem=Problem.Y_TO_X),))
    with pytest.raises(ValueError, match="frozen"):
        found.seed = 3  # type: ignore[misc]
