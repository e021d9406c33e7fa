class Callback:
    pass


class LightningDataModule:
    pass
