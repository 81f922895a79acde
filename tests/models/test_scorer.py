import io
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.frames import read_frame, write_frame
from models.quality import image_properties
from models.scorer import ScoringError, ScoringProcess
from tests.models.conftest import CLASSES, SHAPE, halves


@pytest.fixture(scope="module")
def process(version_dir: Path) -> Iterator[ScoringProcess]:
    with ScoringProcess(version_dir) as started:
        yield started


def test_it_says_what_it_serves(process: ScoringProcess) -> None:
    assert process.classes == CLASSES
    assert process.input_shape == SHAPE


def test_scores_of_an_image_are_equal_to_the_last_bit_in_any_company(
    process: ScoringProcess,
) -> None:
    images = halves(33, 6)[0]
    scores, codes, properties = process.score(images)
    assert codes is not None
    assert properties is not None
    assert (scores.shape, codes.shape) == ((33, 2), (33, 512))
    np.testing.assert_array_equal(properties, image_properties(images))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    for rows in (slice(32, 33), slice(3, 14)):
        part = process.score(images[rows])
        np.testing.assert_array_equal(part.scores, scores[rows])
        np.testing.assert_array_equal(part.codes, codes[rows])
        np.testing.assert_array_equal(part.properties, properties[rows])


@pytest.mark.parametrize(
    "images", [np.zeros((1, 48, 32, 3), np.uint8), np.zeros((1, *SHAPE), np.float32)]
)
def test_images_that_do_not_fit_are_refused_and_the_process_goes_on(
    process: ScoringProcess, images: Any
) -> None:
    with pytest.raises(ScoringError, match=r"expected uint8 of shape \(n, 32, 32, 3\), got"):
        process.score(images)
    assert process.score(halves(1, 0)[0])[0].shape == (1, 2)


def test_a_process_that_died_is_started_again_and_answers_the_same(
    process: ScoringProcess,
) -> None:
    images = halves(2, 9)[0]
    before = process.score(images)
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)
    after = process.score(images)
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_process_ends_when_it_is_closed(process: ScoringProcess) -> None:
    running = process._process
    assert running is not None
    process.close()
    assert running.returncode == 0
    process.close()


def test_a_folder_without_a_model_is_an_error_that_quotes_the_process(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"exit status 1.*\n.*(.*\n)*.*network\.json"):
        ScoringProcess(tmp_path).start()


def test_a_process_that_does_not_answer_is_given_up_and_ended(tmp_path: Path) -> None:
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    scoring = ScoringProcess(tmp_path, python=str(mute), start_timeout_s=0.2)
    with pytest.raises(ScoringError, match=r"no answer within 0\.2 s"):
        scoring.start()
    assert scoring._process is None


def test_frames_come_back_as_written() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"a": np.arange(3), "error": np.array("bad")})
    stream.seek(0)
    frame = read_frame(stream.read)
    assert frame is not None
    assert frame["a"].tolist() == [0, 1, 2]
    assert str(frame["error"]) == "bad"
    assert read_frame(stream.read) is None


def test_a_frame_that_is_cut_or_is_text_is_an_error() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"a": np.arange(3)})
    whole = stream.getvalue()
    for cut in (3, 8, len(whole) - 1):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(whole[:cut]).read)
    with pytest.raises(ValueError, match="frame: at most"):
        read_frame(io.BytesIO(b"Traceback (most recent call last)").read)


def test_a_frame_never_unpickles() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{"x": 1}], dtype=object), allow_pickle=True)
    content = buffer.getvalue()
    with pytest.raises(ValueError, match="allow_pickle"):
        read_frame(io.BytesIO(struct.pack("<Q", len(content)) + content).read)
