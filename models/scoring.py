"""The scoring process: ``python -m models.scoring VERSION_DIR``.

Sends one frame with what it serves, then answers each frame on standard input (``images``) with
one on standard output (``scores``, ``codes`` and ``properties``, or ``error``), until the input
ends.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.child import claim_stdout, configure_tensorflow
from models.features import batch_size, predict, scorer
from models.frames import Arrays, read_frame, write_frame
from models.quality import image_properties
from models.vgg16 import Vgg16

THREADS = 2


def serve(folder: Path, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until they end.

    Parameters
    ----------
    folder
        With the files of `models.vgg16.Vgg16.save`.
    requests, replies
        Streams of frames.
    """
    network = Vgg16.read(folder)  # a wrong folder fails before TensorFlow's seconds are spent
    configure_tensorflow(THREADS)
    model, size = scorer(Vgg16.load(folder)[1]), batch_size(network.input_shape)
    # The first batch compiles the graph: better now than under the first event.
    predict(model, np.zeros((1, *network.input_shape), dtype=np.uint8), size)
    write_frame(
        replies,
        {
            "classes": np.array(network.classes),
            "input_shape": np.array(network.input_shape),
            "batch_size": np.array(size),
        },
    )
    while (request := read_frame(requests.read)) is not None:
        reply: Arrays
        images = request.get("images", np.empty(0))
        if images.dtype != np.uint8 or images.shape[1:] != network.input_shape:
            message = (
                f"images: expected uint8 of shape (n, {str(network.input_shape)[1:]}, "
                f"got {images.dtype} {images.shape}"
            )
            reply = {"error": np.array(message)}
        else:
            scores, codes = predict(model, images, size)
            properties = image_properties(images)
            reply = {"scores": scores, "codes": codes, "properties": properties}
        write_frame(replies, reply)


def main(arguments: Sequence[str]) -> int:
    """Serve the version named on the command line; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m models.scoring VERSION_DIR\n")
        return 2
    # Ctrl-C reaches the whole process group; this process ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Path(arguments[0]), sys.stdin.buffer, claim_stdout())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
