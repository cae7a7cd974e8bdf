"""Learning rates: by part, over time, and off."""

import pytest

from pano3d.training.optimizer import OptimizerConfig, learning_rate_factor
from pano3d.types import ConfigError


def config(**changes):
    rates = dict(encoder=0.0, decoder=1e-4, geometry_head=1e-4, panoptic=1e-3)
    values = dict(weight_decay=0.05, warmup=0.1, final=0.1, clip_norm=1.0)
    return OptimizerConfig(**(rates | values | changes))


def test_schedule_by_hand():
    # 100 steps, a tenth of warm-up: step 4 is half way up, step 9 at the peak; then half a cosine down to a tenth.
    factor = lambda step: learning_rate_factor(step, 100, config())  # noqa: E731
    assert factor(4) == pytest.approx(0.5)
    assert factor(9) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.1 + 0.9 * 0.5)
    assert factor(99) == pytest.approx(0.1, abs=1e-3)


def test_negative_rate():
    with pytest.raises(ConfigError, match="must not be negative"):
        config(decoder=-1.0)
