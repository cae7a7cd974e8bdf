"""text_classes: embed class names with a CLIP or SigLIP text tower, once, into a file the class head reads."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pano3d.data.label_spaces import LABEL_SPACES, label_space
from pano3d.panoptic.text_classes import PROMPT, Encode, embed_names, write_text_classes
from pano3d.types import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", help="text file, one class name a line; or " + ", ".join(LABEL_SPACES))
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--tower", default="google/siglip-base-patch16-224", help="name or folder of the model")
    parser.add_argument("--prompt", default=PROMPT, help="sentence with {} for the name (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Embed and write; needs the transformers package, which pano3d itself does without."""
    classes = embed_names(class_names(args.names), text_tower(args.tower), args.tower, args.prompt)
    write_text_classes(classes, args.output)
    print(f"{len(classes.names)} classes of width {classes.embeddings.shape[1]} in {args.output}")
    return 0


def class_names(source: str) -> list[str]:
    """The names of a label space, or the lines of a file.

    Raises:
        DataError: there is neither.
    """
    if source in LABEL_SPACES:
        return list(label_space(source).names)
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"reading class names: {source} is neither a text file nor one of {', '.join(LABEL_SPACES)} ({error})"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def text_tower(tower: str) -> Encode:
    """Text features of a CLIP or SigLIP model from its safetensors weights; texts are padded as in its training.

    Raises:
        ConfigError: the transformers package is missing.
    """
    try:
        from transformers import AutoModel, AutoTokenizer  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "embedding class names needs the transformers package; run `pip install transformers` and try again"
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(tower)
    model = AutoModel.from_pretrained(tower, use_safetensors=True).eval()
    length = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def encode(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        features = model.get_text_features(**tokens)
        return features if isinstance(features, Tensor) else features.pooler_output  # a tensor before version 5

    return encode
