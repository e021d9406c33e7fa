import pytest

from megatron_nca.rehearsal.checkouts import find_checkouts
from megatron_nca.rehearsal.corpus import write_corpus


def pytest_generate_tests(metafunc):
    """Run a test that takes `checkout` with every checkout there is, or skip it saying why."""
    if "checkout" not in metafunc.fixturenames:
        return
    missing = pytest.param(None, marks=pytest.mark.skip(reason="MEGATRON_LM names no checkout of Megatron-LM"))
    metafunc.parametrize("checkout", find_checkouts() or [missing], ids=lambda checkout: checkout.tag if checkout else "none")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    sentence = (
        b"The state of a cell depends on its neighbours and on nothing else; %d steps later few cells are what they were. "
    )
    documents = (b"".join(sentence % (number * step) for step in range(1, 12)) for number in range(40))
    return write_corpus(tmp_path_factory.mktemp("corpus") / "text_document", documents)
