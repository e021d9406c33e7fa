"""``megatron-nca rehearse``: the launch itself on this machine's cores, scaled down to a minute or two."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_nca.cli.common import FINDING, OK, UsageError, add_command, at_least, need, print_json
from megatron_nca.patching import is_importable
from megatron_nca.stacks import BRIDGE

if TYPE_CHECKING:
    from megatron_nca.data.curriculum import Plan
    from megatron_nca.rehearsal.checkouts import Checkout
    from megatron_nca.rehearsal.course import Check, Rehearsal
    from megatron_nca.rehearsal.launching import Launch

EXAMPLES = """  megatron-nca rehearse -- torchrun --nproc-per-node 8 -m megatron_nca Megatron-LM/pretrain_gpt.py --data-path ...
  megatron-nca rehearse --megatron /opt/Megatron-LM --nodes 4 -- examples/slurm/llama3_8b_fp8.args
  megatron-nca rehearse --megatron /opt/Megatron-LM -- DATA=/data SAVE=/results examples/phases/train.sh
  megatron-nca rehearse -- torchrun --nproc-per-node 8 -m megatron_nca scripts/training/run_recipe.py --recipe ...

After -- stands a launch as you would type it, a script of a shell or of sbatch that comes to one, with variables before it,
or a file of flags. It needs no GPU and no network. Exit code 1: the launch would be refused, or a part of it does not work."""

WIDTH = 13


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers, "rehearse", run, "run a launch small on this machine's cores, killed and resumed", EXAMPLES
    )
    parser.add_argument("--megatron", type=Path, metavar="DIR", help="a checkout of Megatron-LM (default: the script's folder)")
    parser.add_argument("--text", metavar="PREFIX", help="a text to read where one of the launch is not on this machine")
    parser.add_argument("--nodes", type=at_least(1), metavar="N", help="of the launch, where a script or a file leaves it open")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep checkpoints and logs there (default: a temporary one)")
    parser.add_argument("launch", nargs="*", metavar="-- LAUNCH", help="a command line, a script, or a file of flags")


def run(args: argparse.Namespace) -> int:
    """Read the launch, rehearse it, print each part as it is done; return 1 for one that failed."""
    from megatron_nca.rehearsal.launching import LaunchError

    begun = time.monotonic()
    try:
        launch = read(args.launch, args.megatron, args.nodes)
    except LaunchError as error:
        raise UsageError(str(error)) from None
    checkout = None if launch.stack == BRIDGE.name else _checkout(launch, args.megatron)
    if not launch.plugin and not (checkout and checkout.is_patched):
        raise UsageError(
            f"the launch starts {launch.script} without the plugin, which knows nca: entries; write -m megatron_nca before it"
        )
    _take_the_gpu_s_place(launch)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="nca-rehearsal-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _rehearse(args, launch, checkout, folder.resolve(), begun)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _take_the_gpu_s_place(launch: Launch) -> None:
    """Transformer Engine cannot be imported without a GPU's libraries, and Megatron-Core imports it where it is installed."""
    need("torch", extra="megatron")
    from megatron_nca.rehearsal import install

    install()
    if launch.stack == BRIDGE.name:
        from megatron_nca.rehearsal.bridge import names

        if not is_importable("megatron.bridge"):
            raise UsageError(f"{launch.script}: needs Megatron-Bridge; rehearse with the Python of the launch")
        names.import_core()
        return
    for module in ("megatron.core.datasets.utils", "pybind11"):
        need(module, extra="megatron")


def _rehearsal(args: argparse.Namespace, launch: Launch, checkout: Checkout | None, folder: Path) -> Rehearsal:
    from megatron_nca.rehearsal.bridge.course import BridgeRehearsal
    from megatron_nca.rehearsal.megatron_lm_course import MegatronLMRehearsal

    if checkout is None:
        return BridgeRehearsal(launch, folder, args.text, plan_of)
    return MegatronLMRehearsal(launch, folder, args.text, plan_of, checkout=checkout)


def _rehearse(args: argparse.Namespace, launch: Launch, checkout: Checkout | None, folder: Path, begun: float) -> int:
    from megatron_nca.rehearsal.course import FAILED, real_switch

    rehearsal = _rehearsal(args, launch, checkout, folder)
    plans: list[Plan] = []
    done: list[Check] = []
    for check in _checks(rehearsal, plans):
        done.append(check)
        if not args.json:
            print(f"{check.name:<{WIDTH}} {check.state:<8} {check.detail}", flush=True)
    failed = any(check.state == FAILED for check in done)
    switch = real_switch(plans[0]) if plans else None
    seconds = time.monotonic() - begun
    if args.json:
        checks = [{"name": check.name, "state": check.state, "detail": check.detail} for check in done]
        print_json({"good": not failed, "checks": checks, "switch": switch, "left_out": rehearsal.differences(),
                    "seconds": round(seconds, 1)})  # fmt: skip
    else:
        for line in _closing(rehearsal, switch, failed, seconds):
            print(line)
        if args.folder is not None:
            print(f"wrote logs and checkpoints to {folder}")
    return FINDING if failed else OK


def _closing(rehearsal: Rehearsal, switch: Any, failed: bool, seconds: float) -> Iterator[str]:
    yield ""
    if switch is not None:
        yield (
            f"The run itself switches to text after iteration {switch['iteration']:,}: {switch['samples']:,} samples, "
            f"{switch['tokens']:,} tokens."
        )
    if left := rehearsal.differences():
        yield f"Not rehearsed: {' '.join(left)}"
    yield f"{'It would not go as it stands' if failed else 'Rehearsed'}, in {seconds:.0f} s."


def _checks(rehearsal: Rehearsal, plans: list[Plan]) -> Iterator[Check]:
    """Yield each part; the runs only where the arguments and the plan are right."""
    from megatron_nca.rehearsal.course import FAILED
    from megatron_nca.rehearsal.course import Check as Part

    arguments = rehearsal.arguments()
    yield arguments
    if arguments.state == FAILED:
        return
    problem, warnings = plan_problems(rehearsal.flags, rehearsal.resolved.get("vocabulary"))
    if problem is not None:
        yield Part("plan", FAILED, problem)
        return
    plans.append(plan_of(rehearsal.flags))
    yield Part("plan", "ok", f"{plans[0].samples:,} samples, as megatron-nca plan lays them out")
    yield from (Part("plan", "warning", warning) for warning in warnings)
    environment = {**os.environ, **rehearsal.launch.environment}
    yield from (Part("plan", "warning", line) for line in resume_advices(rehearsal.flags, environment))
    yield from rehearsal.runs(plans[0])


def plan_of(flags: Sequence[str]) -> Plan:
    """Lay out a launch's flags as ``plan`` does."""
    from megatron_nca.cli.launch.reading import read_launch
    from megatron_nca.data.curriculum import plan_training, read_blend

    launch = read_launch(argparse.Namespace(), flags)
    blend = launch.blends[0]
    assert blend is not None
    curriculum = read_blend(blend, mixed=True).measured()
    return plan_training(
        curriculum, launch.args.seq_length, launch.samples, launch.boundaries, iterations=launch.args.train_iters
    )


def resume_advices(flags: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is known beforehand of a launch's FP8 state that its checkpoints would not bring back."""
    from megatron_nca.cli.launch.reading import read_launch
    from megatron_nca.training import extra_state

    args = read_launch(argparse.Namespace(), flags).args
    return extra_state.advices(args, extra_state.installed_version(), environment)


def plan_problems(flags: Sequence[str], vocabulary: object) -> tuple[str | None, Sequence[str]]:
    """Return what ``plan`` has against a launch, or None, and what it warns of."""
    from megatron_nca.cli.main import main

    known = [] if vocabulary is None else ["--vocab-size", str(vocabulary)]
    printed, problems = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(problems):
        code = main(["plan", "--json", *known, "--", *flags])
    if lines := problems.getvalue().strip().splitlines():
        return lines[-1], ()
    plan = json.loads(printed.getvalue())
    return None if code == OK else "; ".join(plan["problems"]), plan["warnings"]


def read(words: Sequence[str], checkout: Path | None, nodes: int | None) -> Launch:
    """Read what stands after ``--``.

    Raises:
        LaunchError: It is no launch, or a script that comes to none.
    """
    from megatron_nca.rehearsal import recording
    from megatron_nca.rehearsal.launching import DEFAULT_RANKS_A_NODE, SCRIPTS, Launch, read_file, read_words

    if not words:
        raise UsageError(
            "give a launch after --, as in megatron-nca rehearse -- torchrun ... -m megatron_nca pretrain_gpt.py ..."
        )
    rest = list(words)
    environment = {}
    while rest and _is_assignment(rest[0]):
        name, _, value = rest.pop(0).partition("=")
        environment[name] = value
    if rest and rest[0] in ("bash", "sh"):
        rest.pop(0)
    if not rest:
        raise UsageError("after the variables stands no launch")
    if recording.is_script(rest[0]):
        return recording.record(rest, environment, checkout, nodes)
    if rest[0].endswith(".args"):
        flags = (*read_file(Path(rest[0])), *rest[1:])
        return Launch(Path(SCRIPTS[0]), flags, (nodes or 1) * DEFAULT_RANKS_A_NODE, plugin=True)
    return read_words(rest, environment)


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _checkout(launch: Launch, given: Path | None) -> Checkout:
    from megatron_nca.rehearsal.checkouts import Checkout

    place = given or launch.script.resolve().parent
    if not (place / "megatron" / "training").is_dir():
        named = f"--megatron {place}" if given else f"{launch.script}"
        raise UsageError(f"{named}: is in no checkout of Megatron-LM; give one by --megatron DIR")
    return Checkout(Path(os.path.abspath(place)))
