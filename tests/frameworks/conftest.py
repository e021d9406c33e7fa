from tests.testing.conftest import corpus, pytest_generate_tests  # noqa: F401
