import json
import subprocess
import sys

import pytest

from megatron_nca.cli.main import main


@pytest.fixture
def command(capsys):
    """Call the console script's own function; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return call


@pytest.fixture
def succeed(command):
    """Call with ``--json``; returns what it printed."""

    def call(*arguments, code=0):
        found, out, err = command(*arguments, "--json")
        assert found == code, err
        return json.loads(out)

    return call


@pytest.fixture
def fail(command):
    """Call on bad input; returns the one line of error."""

    def call(*arguments, code=2):
        found, _, err = command(*arguments)
        assert found == code, err
        assert "Traceback" not in err
        return err

    return call


@pytest.fixture
def in_process():
    """Run in a process of its own, as a shell would."""

    def run(*arguments, **options):
        words = [sys.executable, "-m", "megatron_nca.cli", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)

    return run
