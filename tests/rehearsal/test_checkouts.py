import os

import pytest

from megatron_nca.rehearsal.checkouts import Checkout, compile_helpers, extension_suffix, find_checkouts

VERSION = "MAJOR = 0\nMINOR = {}\nPATCH = {}\n"
HELPERS = '#include <pybind11/pybind11.h>\nPYBIND11_MODULE(helpers_cpp, m) { m.attr("value") = 1; }\n'


def make_checkout(path, minor=16, patch=1):
    core = path / "megatron" / "core"
    (core / "datasets").mkdir(parents=True)
    (core / "package_info.py").write_text(VERSION.format(minor, patch))
    (core / "datasets" / "helpers.cpp").write_text(HELPERS)
    (path / "pretrain_gpt.py").touch()
    return Checkout(path)


def test_without_the_variable_there_are_none():
    assert find_checkouts({}) == find_checkouts({"MEGATRON_LM": ""}) == ()


def test_a_checkout_is_found(tmp_path):
    checkout = make_checkout(tmp_path)
    assert find_checkouts({"MEGATRON_LM": str(tmp_path)}) == (checkout,)
    assert checkout.tag == "core_v0.16.1"


def test_a_folder_of_checkouts_is_sorted_by_version(tmp_path):
    for name, minor in (("new", 19), ("old", 9), ("middle", 14)):
        make_checkout(tmp_path / name, minor, 0)
    found = find_checkouts({"MEGATRON_LM": str(tmp_path)})
    assert [checkout.path.name for checkout in found] == ["old", "middle", "new"]


def test_a_folder_without_checkouts_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkout of Megatron-LM"):
        find_checkouts({"MEGATRON_LM": str(tmp_path)})


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    pytest.importorskip("pybind11")
    checkout = make_checkout(tmp_path_factory.mktemp("compiled"))
    return checkout, compile_helpers(checkout)


def test_helpers_are_compiled_for_the_python(compiled):
    _, module = compiled
    assert module.name == f"helpers_cpp{extension_suffix()}"
    assert module.stat().st_size


def test_nothing_else_is_left_behind(compiled):
    _, module = compiled
    assert {path.name for path in module.parent.iterdir()} == {"helpers.cpp", module.name}


def test_helpers_are_compiled_once(compiled):
    checkout, module = compiled
    before = module.stat().st_mtime_ns
    assert compile_helpers(checkout) == module
    assert module.stat().st_mtime_ns == before


def test_an_error_of_the_compiler_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("pybind11")
    checkout = make_checkout(tmp_path)
    (tmp_path / "megatron/core/datasets/helpers.cpp").write_text("#error broken source")
    with pytest.raises(RuntimeError, match="broken source"):
        compile_helpers(checkout)
    assert os.listdir(tmp_path / "megatron/core/datasets") == ["helpers.cpp"]
