"""The other end of the scoring process; imports no TensorFlow."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, NamedTuple, Self, cast

from models.frames import Arrays, read_frame, write_frame
from models.spec import Floats, Images


class Scored(NamedTuple):
    """What a champion says about its inputs.

    Attributes
    ----------
    scores
        Probabilities of the classes, shape (n, K).
    codes
        Embeddings, shape (n, m); None where the model has none.
    properties
        `models.quality.image_properties`, shape (n, q); None where the inputs are no images.
    """

    scores: Floats
    codes: Floats | None = None
    properties: Floats | None = None


class ScoringError(RuntimeError):
    """The scoring process does not answer, or refuses what it was asked."""


class _DiedError(ScoringError):
    """The process is gone: worth one retry, unlike a refusal."""


class ScoringProcess:
    """A version's network in a process of its own.

    Scores of an image are equal to the last bit whatever it is sent with. If the process dies, the
    request is repeated once on a new one. Not for use from several threads at once.

    Parameters
    ----------
    version_dir
        Folder of a version, or of a job's candidate.
    python
        Interpreter to run it with.
    start_timeout_s
        For loading TensorFlow and the network.
    timeout_s
        For one request.
    """

    def __init__(
        self,
        version_dir: Path,
        *,
        python: str = sys.executable,
        start_timeout_s: float = 180.0,
        timeout_s: float = 300.0,
    ) -> None:
        self.version_dir = Path(version_dir)
        self.classes: tuple[str, ...] = ()
        self.input_shape: tuple[int, ...] = ()
        self._python = python
        self._start_timeout_s = start_timeout_s
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it can score; nothing if it runs already.

        Raises
        ------
        ScoringError
            If it does not come up; quotes the end of what it wrote on standard error.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        # The package may lie in a source tree that is nobody's working directory.
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(  # noqa: S603  the caller's own interpreter and folder
            [self._python, "-m", "models.scoring", str(self.version_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        try:
            hello = self._read(self._start_timeout_s)
        except ScoringError:
            self._end(grace_s=0)
            raise
        self.classes = tuple(map(str, hello["classes"]))
        self.input_shape = tuple(map(int, hello["input_shape"]))

    def score(self, images: Images) -> Scored:
        """Scores, codes and properties of images.

        Parameters
        ----------
        images
            Shape (n, height, width, 3) of the version's input, uint8.

        Returns
        -------
        Scored
            Scores: float32, softmax over `classes`. Codes: float32, shape (n, 512), the mean over
            the image of block 5's output.

        Raises
        ------
        ScoringError
            If the images do not fit, or the process died twice.
        """
        try:
            reply = self._ask(images)
        except _DiedError:
            reply = self._ask(images)
        if "error" in reply:
            raise ScoringError(f"scoring {self.version_dir}: {reply['error']}")
        return Scored(reply["scores"], reply["codes"], reply["properties"])

    def close(self) -> None:
        """End the process; it may be started again."""
        self._end(grace_s=5.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, *, grace_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # unsent bytes for a dead process
                        stream.close()
            try:
                process.wait(timeout=grace_s)  # it ends when its input does
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _ask(self, images: Images) -> Arrays:
        self.start()
        process = cast("subprocess.Popen[bytes]", self._process)
        try:
            write_frame(cast("BinaryIO", process.stdin), {"images": images})
            return self._read(self._timeout_s)
        except BrokenPipeError as error:
            message = self._why()
            self._end(grace_s=0)
            raise _DiedError(message) from error
        except ScoringError:
            # Also after a timeout: the late answer must not be taken for the next request's.
            self._end(grace_s=0)
            raise

    def _read(self, timeout_s: float) -> Arrays:
        process = cast("subprocess.Popen[bytes]", self._process)
        pipe = cast("IO[bytes]", process.stdout).fileno()
        deadline = time.monotonic() + timeout_s

        def read(n: int) -> bytes:
            content = bytearray()
            while len(content) < n:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([pipe], [], [], left)[0]:
                    raise ScoringError(
                        f"scoring {self.version_dir}: no answer within {timeout_s:g} s"
                    )
                part = os.read(pipe, min(n - len(content), 2**20))
                if not part:
                    break
                content += part
            return bytes(content)

        try:
            frame = read_frame(read)
        except (EOFError, ValueError) as error:
            raise _DiedError(self._why()) from error
        if frame is None:
            raise _DiedError(self._why())
        return frame

    def _why(self) -> str:
        """What is known about the end of the process."""
        process = cast("subprocess.Popen[bytes]", self._process)
        try:
            status: int | str = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            status = "none, still running"
        tail = ""
        if self._errors is not None:
            self._errors.seek(0)
            tail = self._errors.read()[-2000:].decode(errors="replace").strip()
        return (
            f"scoring {self.version_dir}: the process ended (exit status {status}): "
            f"{tail or 'without a message'}"
        )
