def setup(state, train_valid_test_datasets_provider):
    pass
