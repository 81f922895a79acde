"""The wired service, asked over HTTP while and after it works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.app import App, open_app, serving
from service.settings.service import Settings
from service.sources.listed import ListSource
from tests.service.streams import as_records

CLASSES = ("ham", "spam")
CHANGE = 900


def bodies(n: int, seed: int = 100) -> list[dict[str, object]]:
    """A Y->X stream with the scores of a calibrated classifier; spam goes from 30 to 80 %."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < np.where(np.arange(n) < CHANGE, 0.3, 0.8)
    x = rng.normal(size=(n, 2)) + 1.5 * y[:, None]
    log_odds = np.log(0.3 / 0.7) + 1.5 * x.sum(axis=1) - 2.25
    spam = 1 / (1 + np.exp(-log_odds))
    return [
        {
            "stream": "mail",
            "id": f"m{i}",
            "features": {"links": float(x[i, 0]), "length": float(x[i, 1])},
            "scores": {"ham": float(1 - spam[i]), "spam": float(spam[i])},
            "label": CLASSES[int(y[i])],
        }
        for i in range(n)
    ]


def settings(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "store": {"url": f"sqlite:///{folder}/s.db"},
            "registry": {"path": folder / "models"},
            "dead_letters": {"path": folder / "dead.jsonl"},
            "http": {"port": 0},
            "streams": [
                {
                    "name": "mail",
                    "problem": "y_to_x",
                    "classes": list(CLASSES),
                    "reference": {"warm_up": 600},
                    "false_alarm_every": 50_000,
                    "confirm": {"looks": [100, 200, 300], "max_wait": 1000, "min_labels": 60},
                },
                {"name": "bare", "problem": "x_to_y"},
            ],
        }
    )


@pytest.fixture(scope="module")
def records() -> list[dict[str, object]]:
    return bodies(2000)


@pytest.fixture
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[App]:
    records: list[dict[str, object]] = request.getfixturevalue("records")
    with open_app(settings(tmp_path), ListSource(as_records(records[: request.param]))) as app:
        yield app


def ask(app: App, *scores: object) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """The stream's document, the metrics, and the answers to scores."""
    with serving(app) as server:
        assert server is not None
        with httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=10, verify=False
        ) as client:
            path = "/api/v1/streams/mail"
            answers = [client.post(f"{path}/scores", json={"scores": s}).json() for s in scores]
            return client.get(path).json(), client.get("/metrics").text, answers


@pytest.mark.parametrize("app", [700], indirect=True)
def test_before_a_shift_scores_are_served_as_they_are(app: App) -> None:
    app.run(threading.Event())
    stream, metrics, (answer,) = ask(app, [[0.4, 0.6]])
    assert stream["prior"] is None
    assert answer == {"scores": [[0.4, 0.6]], "predictions": ["spam"], "since_index": None}
    share = np.mean([body["label"] == "spam" for body in bodies(600)])
    assert f'shiftwatch_prior{{class="spam",stream="mail"}} {share}' in metrics


@pytest.mark.parametrize("app", [2000], indirect=True)
def test_after_a_prior_shift_the_scores_that_are_served_are_those_the_service_uses(
    app: App,
) -> None:
    app.run(threading.Event())
    stream, metrics, (answer, named) = ask(app, [[0.6, 0.4]], {"ham": 0.6, "spam": 0.4})
    prior = stream["prior"]
    assert prior["classes"] == list(CLASSES)
    assert prior["source"][1] == pytest.approx(0.3, abs=0.05)
    assert prior["target"][1] == pytest.approx(0.8, abs=0.08)
    assert prior["weights"][1] == pytest.approx(prior["target"][1] / prior["source"][1])
    assert prior["method"] == "mlls"
    (incident,) = app.store.incidents("mail", None, None)
    assert incident.confirmed_at is not None
    assert prior["since_index"] == incident.confirmed_at.index + 1
    assert incident.actions[0]["method"] == "mlls"

    correction = app.pipeline.streams["mail"].monitor.reweighting.correction
    assert correction is not None
    expected = correction.apply(np.array([[0.6, 0.4]]))
    np.testing.assert_array_equal(answer["scores"], expected)
    assert answer["predictions"] == named["predictions"] == ["spam"]
    assert named["scores"] == dict(zip(CLASSES, expected[0].tolist(), strict=True))
    assert answer["since_index"] == prior["since_index"]
    shown = f'shiftwatch_prior{{class="spam",stream="mail"}} {prior["target"][1]}'
    assert shown in metrics
    assert 'stream="bare"' not in "".join(
        line for line in metrics.splitlines() if line.startswith("shiftwatch_prior{")
    )


@pytest.mark.parametrize("app", [50], indirect=True)
def test_a_stream_without_scores_and_one_that_is_not_there_say_so(app: App) -> None:
    with pytest.raises(ValueError, match="stream 'bare' has no scores: it has neither a model"):
        app.correct_scores("bare", [[1.0]])
    with pytest.raises(LookupError, match="there is no stream 'none'"):
        app.correct_scores("none", [[1.0]])


@pytest.mark.parametrize("app", [2000], indirect=True)
def test_asking_while_the_pipeline_works_never_fails(app: App) -> None:
    worker = threading.Thread(target=app.run, args=(threading.Event(),))
    seen = set()
    worker.start()
    while worker.is_alive():
        answer = app.correct_scores("mail", [[0.6, 0.4]])
        assert sum(answer["scores"][0]) == pytest.approx(1)
        prior = app.streams()[0]["prior"]
        seen.add(None if prior is None else prior["since_index"])
        worker.join(0.001)
    assert None in seen
    assert len(seen) == 2
