"""A hand-held walk through a room: standing points that see much, and a smooth path checked by ray casting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from pano3d.data.rooms.plan import RoomPlan
from pano3d.data.rooms.primitives import cross
from pano3d.data.rooms.scene import Hits, RayScene, RoomGeometry
from pano3d.types import DegenerateError

FloatArray = NDArray[np.floating]

_PROBE = (24, 18)
_STANDING_POINTS = 72
_KEY_VIEWS = 5
_FRAMES_PER_KEY = 4  # neighbouring photos then share about two thirds of what they show
_OVERSAMPLING = 5
_STUFF = 3  # objects 0, 1, 2 are the walls, the floor and the ceiling


@dataclass(frozen=True)
class Camera:
    """intrinsics (3 3), pixels, centres at integers; scan_from_camera (4 4), OpenCV axes."""

    intrinsics: NDArray[np.float64]
    scan_from_camera: NDArray[np.float64]
    width: int
    height: int


def draw_intrinsics(generator: Generator, width: int, height: int) -> NDArray[np.float64]:
    """A phone or a sensor: 60 to 71 degrees wide, nearly square pixels, the centre a little off."""
    focal = width * generator.uniform(0.7, 0.86)
    cx = (width - 1) / 2 + generator.uniform(-0.01, 0.01) * width
    cy = (height - 1) / 2 + generator.uniform(-0.01, 0.01) * height
    return np.array([[focal, 0, cx], [0, focal * generator.uniform(0.99, 1.01), cy], [0, 0, 1]])


def camera_rays(cameras: Sequence[Camera], shift: tuple[float, float] = (0.0, 0.0)) -> tuple[FloatArray, FloatArray]:
    """(V*H*W 3) origins and directions with unit z in the camera frame, so that t is depth; `shift` in pixels. The
    cameras share their intrinsics and size."""
    first = cameras[0]
    k = first.intrinsics
    u = (np.arange(first.width) + shift[0] - k[0, 2]) / k[0, 0]
    v = (np.arange(first.height) + shift[1] - k[1, 2]) / k[1, 1]
    poses = np.stack([camera.scan_from_camera for camera in cameras])
    r = poses[:, :3, :3, None, None]
    shape = (len(cameras), first.height, first.width, 3)
    directions = np.empty(shape, np.float32)
    for i in range(3):
        directions[..., i] = r[:, i, 0] * u + r[:, i, 1] * v[:, None] + r[:, i, 2]
    origins = np.broadcast_to(poses[:, None, None, :3, 3].astype(np.float32), shape)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def look_at(
    eyes: NDArray[np.float64], targets: NDArray[np.float64], rolls: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """(N 4 4) scan_from_camera at `eyes` (N 3), z towards `targets` (N 3), x level before the rolls (N,), radians."""
    forward = targets - eyes
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    # Forward x (0 0 1).
    right = np.stack([forward[:, 1], -forward[:, 0], np.zeros(len(eyes))], 1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = cross(forward, right)
    cos, sin = np.broadcast_to(np.cos(rolls), len(eyes))[:, None], np.broadcast_to(np.sin(rolls), len(eyes))[:, None]
    poses = np.zeros((len(eyes), 4, 4))
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = cos * right + sin * down, cos * down - sin * right, forward
    poses[:, :3, 3], poses[:, 3, 3] = eyes, 1
    return poses


class _Probe:
    """Small renderings of many poses at once: what each sees, and how near it is."""

    def __init__(
        self, geometry: RoomGeometry, full: RayScene, intrinsics: NDArray[np.float64], width: int, height: int
    ):
        columns, rows = _PROBE
        scale = np.array([columns / width, rows / height])
        k = intrinsics.copy()
        k[0, 0], k[1, 1] = k[0, 0] * scale[0], k[1, 1] * scale[1]
        k[0, 2], k[1, 2] = (columns - 1) / 2, (rows - 1) / 2
        self._intrinsics, self._geometry, self._full = k, geometry, full

    def see(self, poses: NDArray[np.float64]) -> tuple[NDArray[np.int32], FloatArray]:
        """(poses, rays) object index, -1 for a miss, and depth."""
        columns, rows = _PROBE
        hits: Hits = self._full.cast(*camera_rays([Camera(self._intrinsics, pose, columns, rows) for pose in poses]))
        owner = np.where(hits.triangle < 0, -1, self._geometry.object_index[hits.triangle])
        shape = (len(poses), columns * rows)
        return owner.reshape(shape), hits.t.reshape(shape)


def _shares(owner: NDArray[np.int32], objects: int) -> NDArray[np.float64]:
    """(poses, objects) share of the rays of each pose that met each object."""
    poses, rays = owner.shape
    slot = owner + 1 + (objects + 1) * np.arange(poses)[:, None]  # slot 0 is for misses
    return np.bincount(slot.ravel(), minlength=poses * (objects + 1)).reshape(poses, -1)[:, 1:] / rays


def _standing_points(plan: RoomPlan, full: RayScene, generator: Generator) -> NDArray[np.float64]:
    """(N 3) eye positions at hand height, away from walls and furniture; nearer where the room is small."""
    size = plan.size
    margin = 0.3 if min(size.width, size.depth) > 3.0 else 0.22
    draws = generator.random((600, 3))
    eyes = np.stack(
        [
            margin + draws[:, 0] * (size.width - 2 * margin),
            margin + draws[:, 1] * (size.depth - 2 * margin),
            1.25 + 0.45 * draws[:, 2],
        ],
        1,
    )
    # People stand on the floor: nothing solid up to the knees, unless the room leaves no choice.
    for knee in (0.3, 1.0):
        free = np.ones(len(eyes), bool)
        for solid in plan.solid:
            if solid.z[0] < 1.7 and solid.z[1] > knee:
                free &= ~((eyes[:, :2] > solid.low - 0.12).all(1) & (eyes[:, :2] < solid.high + 0.12).all(1))
        # Distances are dear, and the first points suffice.
        found = np.empty((0, 3))
        for some in np.split(eyes[free], range(96, int(free.sum()), 96)):
            found = np.concatenate([found, some[full.distance(some.astype(np.float32)) > 0.25]])
            if len(found) >= _STANDING_POINTS:
                break
        if len(found) >= 12:
            return found[:_STANDING_POINTS]
    raise DegenerateError(f"rooms: no free place to stand in a {plan.kind} of {size.width:.1f} x {size.depth:.1f} m")


def _targets(plan: RoomPlan, eyes: NDArray[np.float64], generator: Generator) -> NDArray[np.float64]:
    """(N 3) a thing to look at for each eye, a few metres away."""
    centres = np.array(
        [
            (placed.scan_from_object @ np.append(np.mean(placed.mesh.bounds(), 0), 1.0))[:3]
            for placed in plan.objects[_STUFF:]
        ]
    )
    targets = np.empty_like(eyes)
    for row, eye in enumerate(eyes):
        distance = np.linalg.norm(centres - eye, axis=1)
        weight = np.clip(distance - 0.8, 0.02, 2.2)
        targets[row] = centres[generator.choice(len(centres), p=weight / weight.sum())]
    middle = np.array([plan.size.width / 2, plan.size.depth / 2, 0.9])
    targets = 0.65 * targets + 0.35 * middle
    # Never straight down or up.
    away = np.linalg.norm(targets[:, :2] - eyes[:, :2], axis=1)
    targets[:, 2] = np.clip(targets[:, 2], eyes[:, 2] - 0.55 * np.maximum(away, 0.7), eyes[:, 2] + 0.05)
    near = away < 0.7
    targets[near, :2] += (middle[:2] - eyes[near, :2]) * 1.5 + 0.4
    return targets


def _choose_keys(owner: NDArray[np.int32], depth: FloatArray, count: int, objects: int) -> list[int]:
    """Greedy cover: views that show much of things shown least so far."""
    share = _shares(owner, objects)
    seen = np.minimum(share[:, _STUFF:] / 0.02, 1)
    blank = share[:, 0] + share[:, 2]
    usable = (np.quantile(depth, 0.02, axis=1) > 0.5) & (share.max(1) < 0.7)
    if usable.sum() < count:
        usable = np.ones(len(owner), bool)
    covered = np.zeros(objects - _STUFF)
    chosen: list[int] = []
    for _ in range(count):
        gain = (seen / (1 + 2 * covered)).sum(1) - 4.0 * np.maximum(blank - 0.35, 0) - 100 * ~usable
        gain[chosen] = -1e9
        best = int(gain.argmax())
        chosen.append(best)
        covered += seen[best]
    return chosen


def _shortest_order(eyes: NDArray[np.float64], targets: NDArray[np.float64]) -> list[int]:
    """Order of a few key views that turns and walks least."""
    look = (targets - eyes) / np.linalg.norm(targets - eyes, axis=1, keepdims=True)
    cost = np.linalg.norm(eyes[:, None] - eyes[None], axis=2) + 1.2 * (1 - (look[:, None] * look[None]).sum(2))
    orders = (p for p in permutations(range(len(eyes))) if p[0] < p[-1])
    return list(min(orders, key=lambda p: sum(cost[a, b] for a, b in pairwise(p))))


def walk(
    plan: RoomPlan, geometry: RoomGeometry, full: RayScene, generator: Generator, frames: int, width: int, height: int
) -> list[Camera]:
    """Cameras of one visit, in order: few photos stay in one part of the room, many go round it."""
    intrinsics = draw_intrinsics(generator, width, height)
    probe = _Probe(geometry, full, intrinsics, width, height)
    eyes = _standing_points(plan, full, generator)
    targets = _targets(plan, eyes, generator)
    owner, depth = probe.see(look_at(eyes, targets))
    wanted = min(max(2, 1 + round(frames / _FRAMES_PER_KEY)), _KEY_VIEWS, len(eyes))
    keys = _choose_keys(owner, depth, wanted, len(plan.objects))
    order = _shortest_order(eyes[keys], targets[keys])
    keys = [keys[k] for k in order]
    poses = _path(eyes[keys], targets[keys], generator, max(frames, 2) * _OVERSAMPLING)
    good = np.flatnonzero(_is_good(probe, full, poses, len(plan.objects)))
    if len(good) < frames:
        good = np.arange(len(poses))
    taken = good[np.linspace(0, len(good) - 1, frames).round().astype(int)]
    return [Camera(intrinsics, poses[k], width, height) for k in taken]


def _path(
    eyes: NDArray[np.float64], targets: NDArray[np.float64], generator: Generator, count: int
) -> NDArray[np.float64]:
    """(count 4 4) poses along clamped splines through the key views, with the sway of a hand."""
    knots = np.arange(len(eyes), dtype=np.float64)
    time = np.linspace(0, len(eyes) - 1, count)
    # Look in a direction, not at a point: a point may be passed too closely.
    look = (targets - eyes) / np.linalg.norm(targets - eyes, axis=1, keepdims=True)
    eye = CubicSpline(knots, eyes, bc_type="clamped")(time)
    aim = CubicSpline(knots, look, bc_type="clamped")(time)
    phase = generator.uniform(0, 2 * np.pi, (3, 4))
    speed = generator.uniform(0.8, 2.2, (3, 4))
    sway = [np.sin(time[:, None] * speed[k] + phase[k]) for k in range(3)]
    eye = eye + 0.02 * sway[0][:, :3]
    aim = aim + 0.03 * sway[1][:, :3]
    # A spline between opposite directions passes near zero or looks at the ceiling.
    flat = np.maximum(np.linalg.norm(aim[:, :2], axis=1), 0.05)
    aim[:, 2] = np.clip(aim[:, 2] / flat, -0.7, 0.12) * flat
    roll = np.deg2rad(2.5) * sway[2][:, 0]
    return look_at(eye, eye + aim, roll)


def _is_good(probe: _Probe, full: RayScene, poses: NDArray[np.float64], objects: int) -> NDArray[np.bool_]:
    """Poses outside of furniture which see several things, none of them filling the picture."""
    owner, depth = probe.see(poses)
    share = _shares(owner, objects)
    good = (depth.min(1) > 0.28) & ((share > 0.005).sum(1) >= 5) & (share.max(1) < 0.8)
    # Distances are dear: only where all else is well.
    rows = np.flatnonzero(good)
    if len(rows):
        good[rows] = full.distance(poses[rows, :3, 3].astype(np.float32)) > 0.13
    return good
