def setup_data_iterators(cfg, train_state, model_length, train_valid_test_datasets_provider, dp_group):
    pass
