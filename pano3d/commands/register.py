"""register: give the reproduction's joint models a version in the registry and the alias `challenger`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pano3d import config, model_files
from pano3d.commands.results import Layout, layout, read_metrics
from pano3d.data.label_spaces import label_space
from pano3d.data.preparation import file_digest, read_manifest
from pano3d.tracking import registry, store
from pano3d.types import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="default: the one params/run.yaml chooses")


def main(args: argparse.Namespace) -> int:
    """Register what is not registered yet; a second call changes nothing."""
    if not store.is_on():
        print("tracking is off (PANO3D_TRACKING): nothing is registered")
        return 0
    place = layout(args.dataset)
    for backbone in place.backbones():
        folder = place.model(backbone, "joint_finetune")
        description = model_files.read_description(folder)
        digest = file_digest(folder / model_files.WEIGHTS)
        if digest != description.weights_sha256:
            raise WeightsError(f"registering {folder}: the weights are not those of its model.json; run `dvc repro`")
        choice = description.config.backbone
        version = registry.register(
            registry.Candidate(
                name=f"pano3d-{backbone}",
                folder=folder,
                weights_sha256=digest,
                license=description.license,
                class_names=tuple(label_space(description.config.label_space).names),
                image_size=(choice.image_height, choice.image_width),
                params=config.read(place.params(backbone)),
                metrics={
                    stage: read_metrics(place.metrics(backbone, stage)) for stage in ("evaluate", "compare_confidence")
                },
                scores=place.reports(backbone, "evaluate"),
                evaluated=_evaluated(place, backbone),
                stages=_behind(backbone),
                pictures=_pictures(place, backbone),
            )
        )
        state = "registered" if version.is_new else "was registered already"
        print(f"{version.name} version {version.number} {state}; alias {registry.CHALLENGER}")
    return 0


def _behind(backbone: str) -> tuple[str, ...]:
    """The stages that made a model and its scores."""
    own = (f"{stage}@{backbone}" for stage in ("geometry_init", "joint_finetune", "evaluate"))
    return ("compose", "prepare", "check_data", *own)


def _evaluated(place: Layout, backbone: str) -> list[tuple[str, str]]:
    """Scene and SHA-256 of its archive, for every scene the model was scored on."""
    protocol = read_metrics(place.reports(backbone, "evaluate") / "protocol.json")
    manifest = read_manifest(place.data())
    chosen = manifest[manifest["split"] == protocol["evaluation"]["split"]]
    return [(str(scene), str(digest)) for scene, digest in zip(chosen["scene"], chosen["sha256"])]


def _pictures(place: Layout, backbone: str) -> dict[str, Path]:
    """The page of the reproduction and the confidence maps of the backbone, where these stages have run."""
    found = {"report": place.report(), "confidence": place.reports(backbone, "compare_confidence")}
    return {folder: path for folder, path in found.items() if path.exists()}
