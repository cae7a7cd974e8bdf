"""The file of named embeddings, without a text tower."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pano3d.panoptic.text_classes import embed_names, read_text_classes, write_text_classes
from pano3d.types import ConfigError, DataError


def encode(texts: list[str]) -> Tensor:
    """Two numbers that depend on the whole sentence."""
    return torch.tensor([[float(len(text)), float(text.count("a"))] for text in texts])


def test_written_and_read_back_in_any_order(tmp_path: Path) -> None:
    classes = embed_names(["chair", "potted plant", "wall"], encode, "some tower", "A {}.")
    # "A chair." has 8 letters and one small a.
    torch.testing.assert_close(classes.embeddings[0], torch.tensor([8.0, 1.0]) / 65**0.5)
    write_text_classes(classes, tmp_path / "new" / "classes.safetensors")
    read = read_text_classes(tmp_path / "new" / "classes.safetensors")
    assert (read.names, read.prompt, read.tower) == (classes.names, "A {}.", "some tower")
    torch.testing.assert_close(read.arrange(["wall", "chair"]), classes.embeddings[[2, 0]])
    with pytest.raises(DataError, match="no embedding for lamp"):
        read.arrange(["wall", "lamp"])


def test_what_cannot_be_embedded() -> None:
    with pytest.raises(ConfigError, match="prompt"):
        embed_names(["chair"], encode, "some tower", "A photo.")
    with pytest.raises(ConfigError, match="once"):
        embed_names(["chair", "chair"], encode, "some tower")
    with pytest.raises(DataError, match="1 finite vectors"):
        embed_names(["chair"], lambda texts: torch.full((1, 2), float("nan")), "some tower")


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.safetensors"
    with pytest.raises(DataError, match=r"classes\.safetensors"):
        read_text_classes(path)
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not what it says")
    with pytest.raises(DataError, match="make it again"):
        read_text_classes(path)
