"""From a decoded query to class logits: a learned linear layer, or similarity with frozen text embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pano3d.types import ConfigError

ClassMode = Literal["softmax", "sigmoid"]


class LearnedClassHead(nn.Module):
    """Linear class logits; softmax mode has "no object" as last column."""

    def __init__(self, width: int, num_classes: int, mode: ClassMode) -> None:
        super().__init__()
        self.class_embed = nn.Linear(width, num_classes + (mode == "softmax"))

    def forward(self, queries: Float[Tensor, "b q d"]) -> Float[Tensor, "b q k"]:
        return self.class_embed(queries)


class TextClassHead(nn.Module):
    """exp(s) times the cosine between a query and each class name's text embedding.

    The embeddings are a buffer: saved with the weights, never trained, exchangeable for another vocabulary. "No object"
    (softmax mode) is a learned vector in the same space.

    Source: PanSt3R's class head; s starts at 1.
    """

    text_embeddings: Float[Tensor, "k e"]

    def __init__(self, width: int, text_width: int, num_classes: int, mode: ClassMode) -> None:
        super().__init__()
        self.lang_embed = nn.Linear(width, text_width)
        self.cls_logit_scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("text_embeddings", torch.zeros(num_classes, text_width))
        self.no_object = nn.Parameter(torch.randn(1, text_width) * text_width**-0.5) if mode == "softmax" else None
        self._has_vocabulary = False

    def set_vocabulary(self, embeddings: Float[Tensor, "k e"]) -> None:
        """Judge queries by these classes from now on; at inference any number of names will do."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.text_embeddings.shape[1]:
            raise ConfigError(
                f"setting the vocabulary: expected text embeddings of width {self.text_embeddings.shape[1]}, got shape "
                f"{tuple(embeddings.shape)}; make them with the text tower the weights were trained with"
            )
        _check_embeddings(embeddings)
        self.text_embeddings = embeddings.to(self.text_embeddings)

    def forward(self, queries: Float[Tensor, "b q d"]) -> Float[Tensor, "b q k"]:
        text = self.text_embeddings
        if not self._has_vocabulary:  # once: the look at the values waits for the device
            _check_embeddings(text)
            self._has_vocabulary = True
        if self.no_object is not None:
            text = torch.cat([text, self.no_object])
        cosine = functional.normalize(self.lang_embed(queries), dim=-1) @ functional.normalize(text, dim=-1).T
        return self.cls_logit_scale.exp() * cosine


def _check_embeddings(embeddings: Tensor) -> None:
    if not bool((embeddings.norm(dim=-1) > 0).all()):
        raise ConfigError(
            "comparing queries with class names: expected a text embedding per class, got zeros or NaN; set the "
            "vocabulary (TextClassHead.set_vocabulary) from a text classes file"
        )
