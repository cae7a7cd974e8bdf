"""Class names with their text embeddings: a file, made once, so that training and inference need no text tower.

    pano3d text-classes names.txt classes.safetensors --tower google/siglip-base-patch16-224

The file holds `embeddings` (K, E) float32 of length 1 and, as metadata, the names, the prompt and the tower.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pano3d.types import ConfigError, DataError

PROMPT = "This is a photo of {}."  # PanSt3R's
Encode = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class TextClasses:
    """names: K different class names. embeddings: (K E) of length 1. prompt, tower: how they were made."""

    names: tuple[str, ...]
    embeddings: Float[Tensor, "k e"]
    prompt: str
    tower: str

    def arrange(self, names: Sequence[str]) -> Float[Tensor, "n e"]:
        """Embeddings of these names, in this order: what `TextClassHead.set_vocabulary` takes.

        Raises:
            DataError: a name has no embedding.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DataError(
                f"arranging text classes: no embedding for {', '.join(missing)}; make the file again with these names, "
                f"tower {self.tower} and prompt {self.prompt!r}"
            )
        return self.embeddings[[self.names.index(name) for name in names]]


def embed_names(names: Sequence[str], encode: Encode, tower: str, prompt: str = PROMPT) -> TextClasses:
    """Embeddings of the names inside the prompt, normalised.

    Raises:
        ConfigError: the prompt has no place for a name, or a name occurs twice.
        DataError: the tower gave something else than one vector per name.
    """
    if "{}" not in prompt:
        raise ConfigError(f"embedding class names: expected {{}} in the prompt, got {prompt!r}")
    if not names or len(set(names)) != len(names):
        raise ConfigError("embedding class names: expected at least one name and every name once")
    embeddings = encode([prompt.replace("{}", name) for name in names]).float()
    if embeddings.ndim != 2 or len(embeddings) != len(names) or not bool(embeddings.isfinite().all()):
        raise DataError(
            f"embedding class names: expected {len(names)} finite vectors from {tower}, got shape "
            f"{tuple(embeddings.shape)}"
        )
    return TextClasses(tuple(names), functional.normalize(embeddings, dim=-1), prompt, tower)


def write_text_classes(classes: TextClasses, path: Path) -> None:
    metadata = {"names": json.dumps(classes.names), "prompt": classes.prompt, "tower": classes.tower}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": classes.embeddings.contiguous()}, path, metadata=metadata)


def read_text_classes(path: Path) -> TextClasses:
    """Read a file of `write_text_classes`.

    Raises:
        DataError: missing, damaged, or not of this kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            embeddings = file.get_tensor("embeddings").to(torch.float32)
        names = tuple(json.loads(metadata["names"]))
        classes = TextClasses(names, embeddings, metadata["prompt"], metadata["tower"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"reading text classes {path}: not a file made by `pano3d text-classes` ({error}); make it again"
        ) from error
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise DataError(f"reading text classes {path}: {len(names)} names but embeddings {tuple(embeddings.shape)}")
    return classes
