import pytest

from megatron_nca.automaton import known_sizes


@pytest.fixture
def another_score(monkeypatch):
    monkeypatch.setattr(known_sizes, "deflated_size", len)
    known_sizes.check_sizes.cache_clear()
    yield
    known_sizes.check_sizes.cache_clear()


def states(result):
    return {check["name"]: check["state"] for check in result["checks"]}


def test_a_healthy_machine_is_told_so(succeed):
    result = succeed("doctor")
    assert result["healthy"]
    assert {states(result)[name] for name in ("complexity score", "engines", "Megatron-Core")} == {"ok"}


def test_the_fingerprint_alone_is_one_line_and_does_not_change(command, succeed):
    _, out, _ = command("doctor", "--fingerprint")
    assert out.split() == [succeed("doctor")["fingerprint"]]


def test_the_fingerprint_does_not_change_between_machines(command):
    _, out, _ = command("doctor", "--fingerprint")
    assert out.strip() == "6ec653b883101581c7f19e1ec565041dd9624f766cf9dc3b3cf8a00f2fa7a2dd"


def test_a_node_with_another_fingerprint_fails(command, succeed):
    assert command("doctor", "--fingerprint", "--expect", "0" * 64)[0] == 1
    result = succeed("doctor", "--expect", "0" * 64, code=1)
    assert states(result)["fingerprint"] == "FAILED"


def test_another_score_fails(command, another_score):
    code, out, _ = command("doctor")
    assert code == 1
    assert "FAILED  the complexity score of 24 of 24 known inputs" in out


def test_another_dataset_builder_fails(succeed, monkeypatch):
    from megatron.core.datasets import blended_megatron_dataset_builder as module

    class Other:
        def __init__(self, cls, config):
            pass

    monkeypatch.setattr(module, "BlendedMegatronDatasetBuilder", Other)
    assert states(succeed("doctor", code=1))["Megatron-Core"] == "FAILED"


@pytest.mark.parametrize(("value", "result"), [("1", "is set here"), ("0", "is not set here")])
def test_a_transformer_engine_that_resumes_only_what_is_trusted_is_told(succeed, monkeypatch, value, result):
    from megatron_nca.cli.commands import doctor

    monkeypatch.setattr(doctor, "_version", lambda package: "2.17.1")
    monkeypatch.setenv("NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE", value)
    (check,) = [check for check in succeed("doctor")["checks"] if check["name"] == "Transformer Engine"]
    assert (check["state"], check["detail"].endswith(result)) == ("ok", True)
