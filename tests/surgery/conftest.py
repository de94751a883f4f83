"""The costly tests of the conformance suite are slow on all but some pairs of a model and an edit."""

import pytest

COSTLY = ("test_twice_is_once", "test_a_training_step_works")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        costly = item.nodeid.startswith("tests/surgery/test_conformance.py") and item.originalname in COSTLY
        if costly and item.callspec.params["pair"] in item.module.RARE:
            item.add_marker(pytest.mark.slow)
