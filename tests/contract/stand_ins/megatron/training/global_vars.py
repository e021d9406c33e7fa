def get_tensorboard_writer():
    return None


def get_wandb_writer():
    return None
