"""The factory that NeMo's command line finds: ``nemo llm pretrain --factory llama3_8b data=nca data.paths='[...]'``."""

# NeMo-Run finds a factory by the class it is annotated with, so annotations stay classes and do not become strings here.
import lightning.pytorch as lightning
import nemo_run

from megatron_nca.frameworks.nemo import NCADataModule


@nemo_run.cli.factory(name="nca")  # type: ignore[untyped-decorator]
def nca(
    seq_length: int = 8192, global_batch_size: int = 512, micro_batch_size: int = 1, tokenizer: str = ""
) -> nemo_run.Config[lightning.LightningDataModule]:
    """Configure data with ``nca:`` entries; ``paths`` must be given.

    Args:
        seq_length: Tokens of a sample, the model's.
        global_batch_size: Samples of a step.
        micro_batch_size: Samples of a forward pass.
        tokenizer: The text's, a folder or a name at Hugging Face's hub; without it NeMo takes GPT-2's.
    """
    data = nemo_run.Config(NCADataModule, paths=["nca:"], seq_length=seq_length, global_batch_size=global_batch_size)
    data.micro_batch_size = micro_batch_size
    if tokenizer:
        from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

        data.tokenizer = nemo_run.Config(AutoTokenizer, tokenizer)
    return data
