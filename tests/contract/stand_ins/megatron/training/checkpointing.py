def check_checkpoint_args(checkpoint_args):
    pass


def save_checkpoint(iteration, model, optimizer, opt_param_scheduler, num_floating_point_operations_so_far):
    pass
