from types import SimpleNamespace

from megatron_nca.training import gathers


class Group:
    def __init__(self, dispatched):
        self.param_gather_handle = object() if dispatched else None

    def finish_param_sync(self, skip_next_bucket_dispatch=False):
        assert skip_next_bucket_dispatch
        assert self.param_gather_handle is not None, "Megatron would dispatch one"
        self.param_gather_handle = None


def test_gathers_under_way_are_finished_and_none_is_begun():
    groups = [Group(True), Group(False), Group(True)]
    chunk = SimpleNamespace(bucket_groups=groups[:2], expert_parallel_bucket_groups=groups[2:])
    assert gathers.finish([chunk, SimpleNamespace()]) == 2
    assert all(group.param_gather_handle is None for group in groups)
