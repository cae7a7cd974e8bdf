"""ScanNet++ from raw files to its report."""

import pytest

from tests.stages.scan_pipeline import (  # noqa: F401
    reproduced,
    test_every_stage_ran_and_every_frame_is_accounted_for,
    test_the_report_names_dataset_protocol_and_licence,
    test_what_is_trained_on_them_carries_their_licence,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DATASET = "scannetpp"
