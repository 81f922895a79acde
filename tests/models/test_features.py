from typing import Any

import numpy as np
import pytest

from models.features import batch_size, predict, scorer
from tests.models.conftest import halves


@pytest.mark.parametrize(
    ("side", "size"), [(32, 8), (48, 4), (64, 2), (80, 1), (96, 1), (224, 1), (1024, 1)]
)
def test_a_padded_batch_costs_about_the_same_for_all_inputs(side: int, size: int) -> None:
    assert batch_size((side, side, 3)) == size


def test_scores_and_codes_of_an_image_are_equal_to_the_last_bit_in_any_company(
    model: Any,
) -> None:
    both, images = scorer(model), halves(34, 4)[0]
    scores, codes = predict(both, images, 8)
    assert (scores.shape, codes.shape) == ((34, 2), (34, 512))
    assert scores.dtype == codes.dtype == np.float32
    order = np.random.default_rng(0).permutation(34)
    for cuts in ([1, 2, 9], [8, 33]):
        parts = [predict(both, part, 8) for part in np.split(images[order], cuts)]
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), scores[order])
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), codes[order])


def test_codes_are_the_mean_of_block_five(keras: Any, model: Any) -> None:
    images = halves(3, 5)[0]
    block5 = keras.Model(model.inputs, model.get_layer("block5_pool").output)
    expected = predict(block5, images, 32)[0].mean(axis=(1, 2))
    np.testing.assert_allclose(predict(scorer(model), images, 32)[1], expected, rtol=1e-6)


def test_no_images_have_no_scores(model: Any) -> None:
    scores, codes = predict(scorer(model), halves(1, 0)[0][:0], 32)
    assert (scores.shape, codes.shape) == ((0, 2), (0, 512))
