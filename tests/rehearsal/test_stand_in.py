import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch

from megatron_nca.rehearsal import install, installed, stand_in
from megatron_nca.rehearsal.stand_in.devices import to_cpu
from megatron_nca.rehearsal.stand_in.extensions import Triton


@pytest.fixture(scope="module", autouse=True)
def cpu_as_cuda():
    install()


@pytest.fixture
def model_parallel():
    """Megatron-Core's groups and random numbers on one rank, over what it believes to be NCCL."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1234)
    yield
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


def draw():
    return torch.rand(8, device="cuda")


class TestInstall:
    def test_says_that_it_is_installed(self):
        assert installed()

    def test_may_be_repeated(self):
        before = torch.zeros
        install()
        assert torch.zeros is before

    def test_refuses_a_machine_with_a_gpu_and_says_how_to_hide_it(self, monkeypatch):
        monkeypatch.setattr(stand_in, "_installed", False)
        with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES=''"):
            install()

    def test_importing_the_package_imports_no_torch(self):
        check = "import sys, megatron_nca.rehearsal as t; assert not {'torch', 'numba'} & set(sys.modules) - set(before)"
        command = [sys.executable, "-c", f"import sys, megatron_nca; before = set(sys.modules); {check}"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


class TestDevices:
    @pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda"), torch.device("cuda", 3)])
    def test_every_name_of_a_cuda_device_means_the_cpu(self, device):
        assert to_cpu(device) == "cpu"

    @pytest.mark.parametrize("other", [None, "cpu", "meta", torch.device("meta"), torch.float16, True])
    def test_other_values_are_left_alone(self, other):
        assert to_cpu(other) is other

    @pytest.mark.parametrize("make", ["empty", "zeros", "ones", "rand", "randn"])
    def test_factories_make_cpu_tensors(self, make):
        assert getattr(torch, make)(2, device="cuda").device.type == "cpu"

    def test_tensors_and_modules_move(self):
        layer = torch.nn.Linear(2, 2, device="cuda").cuda().to("cuda:0").to(0).to(device=torch.device("cuda"))
        assert layer.weight.cuda(0).to("cuda", torch.float64).dtype == torch.float64

    def test_the_meta_device_still_makes_meta_tensors(self):
        with torch.device("meta"):
            assert torch.empty(2).is_meta
            assert torch.nn.Linear(2, 2).weight.is_meta

    def test_type_names_are_those_of_cuda_tensors(self):
        assert torch.zeros(1, dtype=torch.bfloat16).type() == "torch.cuda.BFloat16Tensor"
        assert torch.zeros(1).type("torch.cuda.HalfTensor").dtype == torch.float16
        cuda: Any = torch.cuda
        assert isinstance(torch.zeros(1), cuda.FloatTensor)

    def test_pinning_is_free(self):
        assert torch.empty(2, pin_memory=True).pin_memory().shape == (2,)

    def test_checkpoints_of_a_gpu_load(self, tmp_path):
        torch.save({"weight": torch.ones(2)}, tmp_path / "checkpoint.pt")
        assert torch.load(tmp_path / "checkpoint.pt", map_location="cuda:0")["weight"].sum() == 2


class TestQueriesAndStreams:
    def test_a_device_is_found_for_every_local_rank(self, monkeypatch):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert torch.cuda.is_available()
        assert (torch.cuda.device_count(), torch.cuda.current_device()) == (4, 3)

    def test_memory_is_counted_as_none(self):
        assert torch.cuda.max_memory_allocated() == torch.cuda.memory_stats()["allocation.all.current"] == 0

    def test_events_measure_time(self):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        end.record(torch.cuda.current_stream())
        end.synchronize()
        assert start.elapsed_time(end) > 0

    def test_work_on_a_side_stream_is_done_at_once(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.device(0), torch.cuda.stream(stream):
            result = torch.ones(2, device="cuda") + 1
        assert stream.record_event().query()
        assert result.tolist() == [2, 2]


class TestRandomNumbers:
    def test_a_device_state_can_be_set_again(self):
        state = torch.cuda.get_rng_state()
        first = draw()
        torch.cuda.set_rng_state(state)
        assert torch.equal(draw(), first)

    def test_manual_seed_seeds_host_and_device(self):
        torch.manual_seed(7)
        host, device = torch.get_rng_state(), torch.cuda.get_rng_state()
        draw()
        torch.manual_seed(7)
        assert torch.equal(torch.get_rng_state(), host)
        assert torch.equal(torch.cuda.get_rng_state(), device)
        assert torch.initial_seed() == torch.cuda.initial_seed() == 7

    def test_draws_of_the_device_leave_the_host_alone(self):
        host = torch.get_rng_state()
        draw()
        assert torch.equal(torch.get_rng_state(), host)

    def test_a_data_loader_draws_from_the_host_only(self):
        host, device = torch.get_rng_state(), torch.cuda.get_rng_state()
        list(torch.utils.data.DataLoader(range(8), shuffle=True))
        assert torch.equal(torch.cuda.get_rng_state(), device)
        assert not torch.equal(torch.get_rng_state(), host)

    def test_a_data_loader_repeats_from_a_host_state(self):
        host = torch.get_rng_state()
        loader = torch.utils.data.DataLoader(range(64), shuffle=True)
        first = list(loader)
        draw()
        torch.set_rng_state(host)
        assert list(loader) == first


class TestMegatronCore:
    def test_groups_are_gloo_groups(self, model_parallel):
        assert torch.distributed.get_backend() == "gloo"

    def test_the_tracker_restores_its_states(self, model_parallel):
        from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

        tracker = get_cuda_rng_tracker()
        states = pickle.loads(pickle.dumps(tracker.get_states()))
        with tracker.fork():
            first = draw()
        tracker.set_states(states)
        with tracker.fork():
            assert torch.equal(draw(), first)

    def test_a_fork_leaves_the_default_stream_where_it_was(self, model_parallel):
        from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

        state = torch.cuda.get_rng_state()
        with get_cuda_rng_tracker().fork():
            draw()
        assert torch.equal(torch.cuda.get_rng_state(), state)

    def test_a_fork_sees_no_change_of_the_host(self, model_parallel, caplog):
        from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

        with get_cuda_rng_tracker().fork():
            draw()
        assert "CPU RNG state changed" not in caplog.text

    def test_an_optimizer_steps(self, model_parallel):
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
        from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
        from megatron.core.tensor_parallel import ColumnParallelLinear
        from megatron.core.transformer import TransformerConfig

        config = TransformerConfig(num_layers=1, hidden_size=4, num_attention_heads=1)
        layer = ColumnParallelLinear(4, 4, config=config, init_method=torch.nn.init.ones_, bias=False).cuda()
        model = DistributedDataParallel(config, DistributedDataParallelConfig(use_distributed_optimizer=True), layer)
        optimizer = get_megatron_optimizer(OptimizerConfig(optimizer="adam", lr=0.1, use_distributed_optimizer=True), [model])
        model(torch.ones(2, 4, device="cuda"))[0].sum().backward()
        model.finish_grad_sync()
        updated, _, _ = optimizer.step()
        assert updated
        assert layer.weight.max() < 1


class TestMissingParts:
    def test_torch_compile_returns_the_function_s_results(self):
        assert torch.compile(lambda x: x + 1)(torch.ones(1)) == 2

    def test_a_kernel_can_be_defined_and_says_that_it_needs_a_gpu(self):
        triton = Triton("triton")

        @triton.autotune(configs=[triton.Config({"BLOCK": 1})], key=[])
        @triton.jit
        def kernel(pointer, block: triton.language.constexpr):  # type: ignore[name-defined]
            """Do nothing."""

        with pytest.raises(RuntimeError, match="needs a GPU"):
            kernel[(1,)](torch.ones(1))

    def test_spawned_processes_get_the_stand_in(self):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert pool.submit(installed).result()
