import functools
import sys
from types import SimpleNamespace

import pytest

from megatron_nca.patching import after_import, is_patched, owner_of, patch


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
    after_import(f"{package}.defines", lambda module: patch(module, "answer", with_ten_more, package))
    assert f"{package}.defines" not in sys.modules
    from late_package.uses import answer

    assert answer() == 11
    assert len(sys.meta_path) == finders
    assert sys.modules[f"{package}.defines"].__spec__.origin.endswith("defines.py")


def test_a_module_imported_before_is_changed_where_others_took_from_it(package):
    import late_package.uses

    after_import(f"{package}.defines", lambda module: patch(module, "answer", with_ten_more, package))
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


def wrapped_by_another(function):
    @functools.wraps(function)
    def foreign():
        return function() + 100

    return foreign


def test_a_function_is_patched_once_and_knows_its_owner():
    holder = SimpleNamespace(answer=lambda: 1)
    for _ in range(2):
        patch(holder, "answer", with_ten_more, owner="ours")
    assert holder.answer() == 11
    assert owner_of(holder, "answer") == "ours"


def test_another_packages_wrapper_does_not_pass_for_ours():
    holder = SimpleNamespace(answer=wrapped_by_another(lambda: 1))
    assert not is_patched(holder, "answer")
    patch(holder, "answer", with_ten_more)
    assert holder.answer() == 111


def test_a_patch_under_another_packages_wrapper_is_found():
    holder = SimpleNamespace(answer=lambda: 1)
    patch(holder, "answer", with_ten_more, owner="ours")
    holder.answer = wrapped_by_another(holder.answer)
    patch(holder, "answer", with_ten_more)
    assert holder.answer() == 111
    assert owner_of(holder, "answer") == "ours"
