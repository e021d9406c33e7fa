class Callback:
    @property
    def state_key(self):
        return type(self).__qualname__


class LightningDataModule:
    pass
