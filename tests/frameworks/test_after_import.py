import sys

import pytest

from megatron_nca.frameworks.after_import import after_import
from megatron_nca.frameworks.replacing import replace


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "late_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "defines.py").write_text("def answer():\n    return 1\n")
    (folder / "uses.py").write_text("from late_package.defines import answer\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "late_package"
    for name in [name for name in sys.modules if name.startswith("late_package")]:
        del sys.modules[name]


def with_ten_more(function):
    def more():
        return function() + 10

    return more


def test_the_module_is_changed_when_it_is_imported_and_not_before(package):
    finders = len(sys.meta_path)
    after_import(f"{package}.defines", lambda module: replace(module, "answer", with_ten_more, package))
    assert f"{package}.defines" not in sys.modules
    from late_package.uses import answer

    assert answer() == 11
    assert len(sys.meta_path) == finders
    assert sys.modules[f"{package}.defines"].__spec__.origin.endswith("defines.py")


def test_a_module_imported_before_is_changed_where_others_took_from_it(package):
    import late_package.uses

    after_import(f"{package}.defines", lambda module: replace(module, "answer", with_ten_more, package))
    assert late_package.uses.answer() == late_package.defines.answer() == 11


def test_a_module_that_is_not_there_is_missed_as_ever(package):
    after_import(f"{package}.missing", lambda module: pytest.fail("was found"))
    with pytest.raises(ModuleNotFoundError, match=r"late_package\.missing"):
        import late_package.missing  # noqa: F401


def test_two_waiting_actions_are_both_done(package):
    done = []
    after_import(f"{package}.defines", lambda module: done.append("first"))
    after_import(f"{package}.defines", lambda module: done.append("second"))
    import late_package.defines  # noqa: F401

    assert sorted(done) == ["first", "second"]
