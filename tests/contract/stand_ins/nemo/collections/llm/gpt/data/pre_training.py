from pathlib import Path

import lightning.pytorch as lightning
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list

from nemo.lightning.pytorch.plugins.data_sampler import MegatronDataSampler


def is_zipped_list(paths):
    return len(paths) % 2 == 0 and all(path.replace(".", "", 1).isdigit() for path in paths[::2])


def validate_dataset_asset_accessibility(paths):
    if isinstance(paths, dict):
        paths = [path for part in paths.values() for path in part]
    if isinstance(paths, str):
        if not is_zipped_list([paths, paths]) and not Path(f"{paths}.idx").exists():
            raise FileNotFoundError(paths)
        return
    for path in paths:
        validate_dataset_asset_accessibility(path)


class PreTrainingDataModule(lightning.LightningDataModule):
    def __init__(
        self,
        paths,
        seq_length=64,
        tokenizer=None,
        micro_batch_size=4,
        global_batch_size=8,
        rampup_batch_size=None,
        seed=1234,
        split="90,5,5",
        index_mapping_dir=None,
        dataloader_type="single",
    ):
        validate_dataset_asset_accessibility(paths)
        if isinstance(paths, dict):
            self.build_kwargs = {
                "blend_per_split": [get_blend_from_list(paths[name]) for name in ("train", "validation", "test")]
            }
        else:
            self.build_kwargs = {"blend": get_blend_from_list(paths), "split": split}
        self.seq_length, self.tokenizer, self.seed = seq_length, tokenizer, seed
        self.index_mapping_dir, self.dataloader_type = index_mapping_dir, dataloader_type
        self.data_sampler = MegatronDataSampler(micro_batch_size, global_batch_size, rampup_batch_size)

    def build(self, train_samples):
        config = GPTDatasetConfig(
            random_seed=self.seed,
            sequence_length=self.seq_length,
            tokenizer=self.tokenizer,
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            path_to_cache=self.index_mapping_dir,
            **self.build_kwargs,
        )
        sizes = [train_samples, 8, 8]
        self._train_ds, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()

    def setup(self, stage=""):
        self.build(self.trainer.max_steps * self.data_sampler.global_batch_size)

    def train_dataloader(self):
        self.data_sampler.init_global_step = self.trainer.global_step
        return self._train_ds
