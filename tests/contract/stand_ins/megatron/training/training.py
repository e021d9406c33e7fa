def train_step(forward_step_func, data_iterator, model, optimizer, opt_param_scheduler, config):
    pass


def evaluate_and_print_results(prefix, forward_step_func, data_iterator, model, iteration):
    pass
