"""Choosing the set of masks that covers most with least overlap: a quadratic binary problem, by seeded annealing.

    maximise  sum_i u_i a_i - 2 penalty sum_{i<j} u_i u_j o_ij,   a_i = sum M_i,   o_ij = sum min(M_i, M_j)

over all pixels of all views. Written as energy u^T W u + regulariser * mean(u) to be minimised.

Source: PanSt3R 0253909 (there penalty 1, 20 restarts of 10 000 flips).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pano3d.panoptic.merging import ClassScores, MaskProbabilities, MergedMasks, MergedSegment, nothing_merged
from pano3d.types import ConfigError


@dataclass(frozen=True)
class AnnealingConfig:
    """Simulated annealing over single flips, temperatures falling geometrically."""

    flips: int = 10_000
    restarts: int = 20
    start_temperature: float = 0.5
    end_temperature: float = 1e-4
    regulariser: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.flips, self.restarts) < 1 or not 0 < self.end_temperature <= self.start_temperature:
            raise ConfigError("annealing: expected flips, restarts >= 1 and 0 < end_temperature <= start_temperature")


def overlap_matrix(
    probabilities: MaskProbabilities, num_views: int, queries: Tensor, penalty: float = 1.0
) -> Float[Tensor, "n n"]:
    """W: minus the area of each mask on the diagonal, penalty * overlap elsewhere, per pixel of all views."""
    n = len(queries)
    overlap = torch.zeros(n, n, dtype=torch.float64, device=queries.device)
    pixels = 0
    for view in range(num_views):
        probs = probabilities(view, queries).flatten(1)
        pixels += probs.shape[1]
        for row in range(n):  # one mask against the later ones: (n, n, pixels) would not fit
            overlap[row, row:] += torch.minimum(probs[row], probs[row:]).sum(-1)
    area = overlap.diagonal().clone()
    matrix = penalty * (overlap + overlap.T)
    matrix[range(n), range(n)] = -area
    return (matrix / pixels).float()


def energy(matrix: NDArray[np.float64], chosen: NDArray[np.float64], regulariser: float) -> NDArray[np.float64]:
    """u^T W u + regulariser * mean(u) of every row u of `chosen` (R, n)."""
    quadratic = np.einsum("ri,ij,rj->r", chosen, matrix, chosen)
    return np.asarray(quadratic + regulariser * chosen.mean(axis=1))


def anneal(matrix: NDArray[np.float64], config: AnnealingConfig, seed: int) -> NDArray[np.bool_]:
    """The best set found over all restarts, each finished by descent to a local minimum."""
    n = len(matrix)
    rng = np.random.default_rng(seed)
    linear = np.diag(matrix) + config.regulariser / n
    coupling = matrix + matrix.T
    np.fill_diagonal(coupling, 0.0)
    chosen = rng.integers(0, 2, size=(config.restarts, n)).astype(np.float64)
    field = linear + chosen @ coupling  # change of energy when a bit goes from 0 to 1
    rows = np.arange(config.restarts)
    temperatures = np.geomspace(config.start_temperature, config.end_temperature, config.flips)
    for temperature in temperatures:
        bit = rng.integers(0, n, size=config.restarts)
        step = 1 - 2 * chosen[rows, bit]
        change = step * field[rows, bit]
        accepted = rng.random(config.restarts) < np.exp(-np.maximum(change, 0) / temperature)
        moved = rows[accepted]
        chosen[moved, bit[accepted]] += step[accepted]
        field[moved] += step[accepted, None] * coupling[bit[accepted]]
    for row in rows:
        _descend(chosen[row], field[row], coupling)
    return np.asarray(chosen[energy(matrix, chosen, config.regulariser).argmin()] > 0)


def _descend(chosen: NDArray[np.float64], field: NDArray[np.float64], coupling: NDArray[np.float64]) -> None:
    while True:
        change = (1 - 2 * chosen) * field
        bit = int(change.argmin())
        if change[bit] >= -1e-12:
            return
        step = 1 - 2 * chosen[bit]
        chosen[bit] += step
        field += step * coupling[bit]


def merge_chosen(
    scores: ClassScores,
    probabilities: MaskProbabilities,
    num_views: int,
    queries: Tensor,
    drop_below: float,
    void_confidence: float,
) -> MergedMasks:
    """Every pixel goes to the most probable of the chosen masks, without threshold.

    A mask whose class score times mean probability on its pixels is below `drop_below` leaves its pixels void.
    """
    if not len(queries):
        return nothing_merged(probabilities, num_views, queries, void_confidence)
    winners, confidences = [], []
    area = torch.zeros(len(queries), dtype=torch.float64, device=queries.device)
    mass = torch.zeros_like(area)
    for view in range(num_views):
        prob, winner = probabilities(view, queries).max(0)
        area += torch.bincount(winner.flatten(), minlength=len(queries))
        mass += torch.bincount(winner.flatten(), weights=prob.flatten().double(), minlength=len(queries))
        winners.append(winner)
        confidences.append(prob)
    kept = (area > 0) & (scores.score[queries] * mass / area.clamp_min(1) >= drop_below)
    ids = torch.where(kept, torch.cumsum(kept, 0), 0)
    segment_id = ids[torch.stack(winners)]
    confidence = torch.where(segment_id > 0, torch.stack(confidences), void_confidence)
    segments = [
        MergedSegment(number + 1, query, int(scores.class_id[query]), float(scores.score[query]))
        for number, query in enumerate(queries[kept].tolist())
    ]
    return MergedMasks(segment_id, confidence, segments)


def merge_qubo(
    scores: ClassScores,
    probabilities: MaskProbabilities,
    num_views: int,
    seed: int,
    annealing: AnnealingConfig,
    penalty: float = 1.0,
    drop_below: float = 0.01,
    void_confidence: float = 0.1,
) -> MergedMasks:
    """Choose masks by annealing, then share out the pixels. Class scores do not enter the choice."""
    queries = scores.keep.nonzero()[:, 0]
    if not len(queries):
        return nothing_merged(probabilities, num_views, queries, void_confidence)
    matrix = overlap_matrix(probabilities, num_views, queries, penalty)
    chosen = anneal(matrix.double().cpu().numpy(), annealing, seed)
    selected = queries[torch.from_numpy(chosen).to(queries.device)]
    return merge_chosen(scores, probabilities, num_views, selected, drop_below, void_confidence)
