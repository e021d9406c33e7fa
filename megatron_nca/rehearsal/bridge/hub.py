"""A model's figures where Hugging Face's hub cannot be reached: those of a model of its kind, whose sizes are scaled anyway."""

from __future__ import annotations

import functools
import os
import re
import socket
import urllib.parse
from collections.abc import Callable
from types import ModuleType
from typing import Any

from megatron_nca.patching import after_import

_ENDPOINT, _OFFLINE, _SECONDS = "https://huggingface.co", "HF_HUB_OFFLINE", 5.0
_MODULE = "megatron.bridge.models.conversion.auto_bridge"

KINDS: tuple[tuple[str, str], ...] = (
    (r"llama", "Llama"),
    (r"qwen3-next", "Qwen3Next"),
    (r"qwen3.*-a\d+", "Qwen3Moe"),
    (r"qwen3", "Qwen3"),
    (r"qwen2", "Qwen2"),
    (r"mixtral", "Mixtral"),
    (r"mistral", "Mistral"),
    (r"deepseek-v3|kimi-k2|moonlight", "DeepseekV3"),
    (r"deepseek-v2", "DeepseekV2"),
    (r"gpt-oss", "GptOss"),
    (r"gemma-2", "Gemma2"),
    (r"gemma-3", "Gemma3Text"),
    (r"olmoe", "Olmoe"),
    (r"glm-4\.5", "Glm4Moe"),
)
"""What a model's name on the hub has, in any case, and how its classes in transformers begin; the first one holds."""

QUERY_GROUPS = {"Llama": 8}
"""Grouped queries, where a kind's classes have none by themselves and its models do."""


def go_offline(at_once: bool) -> None:
    """Have Hugging Face's libraries, which try for minutes, ask nobody where nobody answers; what they have kept is found.

    Args:
        at_once: Whether not to try.
    """
    if at_once or not (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or _answers()):
        os.environ[_OFFLINE] = "1"


def _answers() -> bool:
    host = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", _ENDPOINT)).hostname
    try:
        socket.create_connection((host, 443), timeout=_SECONDS).close()
    except OSError:
        return False
    return True


def install(known_missing: bool, tell: Callable[[str], None]) -> None:
    """Have recipes find a model's kind where they do not find the model.

    Args:
        known_missing: Whether to ask nobody for it.
        tell: Told, in a line, of a model that could not be had.
    """
    after_import(_MODULE, functools.partial(_change, known_missing=known_missing, tell=tell))


def _change(module: ModuleType, known_missing: bool, tell: Callable[[str], None]) -> None:
    bridge: Any = module.AutoBridge
    original = bridge.from_hf_pretrained

    def from_hf_pretrained(path: Any, *rest: Any, **keywords: Any) -> Any:
        config = config_of_kind(str(path))
        if config is None or not known_missing:
            try:
                return original(path, *rest, **keywords)
            except Exception as error:
                if config is None:
                    raise
                tell(f"{path} cannot be had here ({_reason(error)}): the figures of {type(config).__name__} instead")
        return bridge.from_hf_config(config)

    bridge.from_hf_pretrained = from_hf_pretrained


def config_of_kind(path: str) -> Any:
    """Return a config of transformers of a model's kind, or None where its name tells of none that is known here."""
    import transformers

    kind = next((kind for pattern, kind in KINDS if re.search(pattern, path, re.IGNORECASE)), None)
    make = getattr(transformers, f"{kind}Config", None)
    if make is None:
        return None
    groups = {"num_key_value_heads": QUERY_GROUPS[kind]} if kind in QUERY_GROUPS else {}
    return make(architectures=[f"{kind}ForCausalLM"], **groups)


def _reason(error: Exception) -> str:
    """Return what Hugging Face's libraries say, without what Bridge says of its attempts."""
    lines = str(error).rpartition("Last error: ")[2].strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
