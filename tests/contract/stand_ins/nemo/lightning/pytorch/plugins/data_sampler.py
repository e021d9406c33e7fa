from megatron.core import num_microbatches_calculator as calculator


class MegatronDataSampler:
    def __init__(self, micro_batch_size, global_batch_size, rampup_batch_size=None):
        self.micro_batch_size = micro_batch_size
        self.global_batch_size = global_batch_size
        self.rampup_batch_size = rampup_batch_size
        self.init_consumed_samples = self.init_global_step = 0

    def setup(self, global_rank):
        calculator.init_num_microbatches_calculator(global_rank, None, self.global_batch_size, self.micro_batch_size, 1)

    def compute_consumed_samples(self, steps_since_resume=0):
        return self.init_consumed_samples + steps_since_resume * self.micro_batch_size * calculator.get_num_microbatches()
