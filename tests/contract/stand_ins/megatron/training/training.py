def train_step(forward_step_func, data_iterator, model, optimizer, opt_param_scheduler, config):
    pass


def update_train_iters(args):
    if not args.train_iters:
        args.train_iters = args.train_samples // args.global_batch_size


def evaluate_and_print_results(prefix, forward_step_func, data_iterator, model, iteration):
    pass
