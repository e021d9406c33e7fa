def parse_hydra_overrides(cfg, overrides):
    return cfg, overrides
