def train_step(forward_step_func, data_iterator, model, optimizer, scheduler, global_state):
    pass
