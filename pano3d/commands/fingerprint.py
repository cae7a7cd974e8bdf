"""fingerprint: names, sizes and digests of a dataset's raw files, to be committed, so that DVC sees them change."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pano3d import config
from pano3d.data.datasets import Dataset, RoomsDataset, raw_dataset
from pano3d.data.raw_files import RawScene, describe_sources, sources_digest
from pano3d.types import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="an option of params/dataset; its raw root comes from the environment")
    parser.add_argument("--params", type=Path, default=Path("params"))
    parser.add_argument("--override", nargs="*", default=[], help="as in params/run.yaml: dataset.splits=[train]")
    parser.add_argument("--output", type=Path, default=None, help="default: fingerprints/<dataset>.json")
    parser.add_argument(
        "--whole", action="store_true", help="digest whole files; else files over 64 MiB by size and samples of them"
    )


def main(args: argparse.Namespace) -> int:
    """Digest every scene that `prepare` would read, and the tables that name their classes.

    Raises:
        ConfigError: the dataset is generated, or its raw root is not set.
    """
    composed = config.compose(args.params, [f"dataset={args.dataset}", *args.override])
    dataset: Dataset = config.load(composed, Dataset, "dataset")
    if isinstance(dataset, RoomsDataset):
        raise ConfigError(f"fingerprint {args.dataset}: it is generated and has no raw files")
    raw = raw_dataset(dataset)

    def describe(scene: RawScene) -> dict[str, object]:
        sources = describe_sources(scene.sources, scene.folder, args.whole)
        total = sum(source["bytes"] for source in sources)
        return {"files": len(sources), "bytes": total, "sha256": sources_digest(sources)}

    with ThreadPoolExecutor(4) as executor:  # waits for the disk, and hashing lets go of the interpreter
        described = list(
            tqdm(executor.map(describe, raw.scenes), total=len(raw.scenes), desc="scenes", mininterval=2.0)
        )
    content = {
        "dataset": args.dataset,
        "whole": args.whole,
        "scenes": {scene.name: entry for scene, entry in zip(raw.scenes, described, strict=True)},
        "shared": sources_digest(describe_sources(raw.shared, raw.root, args.whole)),
    }
    output = args.output or Path("fingerprints") / f"{args.dataset}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{output}: {len(described)} scenes; {len(raw.missing)} scenes of the splits are not on disk. Commit it.")
    return 0
