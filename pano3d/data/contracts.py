"""The gate before training: rules over the tables of `facts`, judged by Great Expectations.

A rule says what every row of a table must satisfy; a broken one names scene, frame and value. The only importer of
Great Expectations, which takes seconds to import, hence inside a function.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pano3d.data.facts import Facts, ReprojectionConfig
from pano3d.data.label_spaces import LabelSpace
from pano3d.types import ConfigError

Table = Literal["splits", "scenes", "frames", "segments", "classes"]
Range = tuple[float, float]
Bounds = tuple[float | int | None, float | int | None]

_PLACE: dict[Table, list[str]] = {
    "splits": ["split"],
    "scenes": ["split", "scene", "path"],
    "frames": ["split", "scene", "frame"],
    "segments": ["split", "scene", "segment"],
    "classes": ["split", "class_name"],
}
VOID_ROW = "(void)"


@dataclass(frozen=True)
class CheckDataConfig:
    """What the data must satisfy. Ranges are inclusive; shares lie in [0, 1].

    min_scenes: per split. quota_*: each class needs `quota_instances` instances of
    at least `quota_pixels` pixels in each of `quota_splits`. frames_per_scene; depth_range in metres, for the sensor's
    depth; focal_range in image widths; center_range in image widths and heights; focal_ratio_range: fy / fx.
    max_holes, max_missing_depth: share of a frame. max_disagreement: share of pixels off by more than
    `reprojection.tolerance`. max_overlap_error: stored against measured. min_surface_points and
    min_surface_labelled: of the evaluation surface. workers: processes, 0 = one per
    core. data_docs: whether Great Expectations writes its own pages too.
    """

    min_scenes: dict[str, int]
    quota_splits: tuple[str, ...]
    quota_instances: int
    quota_pixels: int
    frames_per_scene: tuple[int, int]
    depth_range: Range
    focal_range: Range
    focal_ratio_range: Range
    center_range: Range
    max_holes: float
    max_missing_depth: float
    max_disagreement: float
    max_overlap_error: float
    min_surface_points: int
    min_surface_labelled: float
    reprojection: ReprojectionConfig
    workers: int
    data_docs: bool

    def __post_init__(self) -> None:
        for name in ("frames_per_scene", "depth_range", "focal_range", "focal_ratio_range", "center_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigError(f"{name}: expected 0 <= low <= high, found {(low, high)}")
        for name in ("max_holes", "max_missing_depth", "max_disagreement", "max_overlap_error", "min_surface_labelled"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected a share in [0, 1], found {getattr(self, name)}")
        if min(self.quota_instances, self.quota_pixels, self.workers, *self.min_scenes.values(), 0) < 0:
            raise ConfigError("quota_instances, quota_pixels, min_scenes and workers cannot be negative")
        unknown = sorted(set(self.quota_splits) - set(self.min_scenes))
        if unknown:
            raise ConfigError(f"quota_splits: {unknown} are not in min_scenes, which has {sorted(self.min_scenes)}")


@dataclass(frozen=True)
class Rule:
    """What every row of a table must satisfy; rows without a value are not judged (something else failed there).

    low, high: inclusive bounds, for `between`. values: for `one_of`.
    """

    name: str
    table: Table
    column: str
    kind: Literal["between", "one_of", "empty", "unique"]
    meaning: str
    low: float | int | None = None
    high: float | int | None = None
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Violation:
    """One row that breaks a rule. place: the names that find it, such as split, scene and frame."""

    rule: str
    place: dict[str, str]
    value: str

    def __str__(self) -> str:
        names = {key: value for key, value in self.place.items() if key not in ("split", "scene", "path")}
        where = "/".join(self.place[key] for key in ("split", "scene") if key in self.place)
        return " ".join([where, *(f"{key} {value}" for key, value in names.items())]) + f": {self.rule}: {self.value}"


@dataclass(frozen=True)
class Verdict:
    """rows: judged rows per rule, in the order of `rules`. violations: all, by rule and place. classes: the known."""

    rules: list[Rule]
    rows: list[int]
    violations: list[Violation]
    classes: tuple[str, ...]

    def broken(self, rule: Rule) -> int:
        """Number of violations of a rule."""
        return sum(violation.rule == rule.name for violation in self.violations)


def tables(facts: Facts, config: CheckDataConfig, space: LabelSpace) -> dict[Table, pd.DataFrame]:
    """The tables that rules speak of: the facts, and their sums per split and per class."""
    things = facts.segments["class_name"].map(dict(zip(space.names, space.is_thing)))
    agrees = (things == facts.segments["is_thing"]).where(things.notna(), None)
    return {
        "splits": split_table(facts, config),
        "scenes": facts.scenes,
        "frames": facts.frames,
        "segments": facts.segments.assign(kind_matches=agrees),
        "classes": class_table(facts, config, space.names),
    }


def split_table(facts: Facts, config: CheckDataConfig) -> pd.DataFrame:
    """Per split: scenes, frames, pixels, share without id and mean share without depth; of what could be read."""
    frames = facts.frames[facts.frames["fault"].isna()]
    rows: list[dict[str, Any]] = []
    for split in sorted({*config.min_scenes, *facts.scenes["split"]}, key=lambda name: _split_order(name, config)):
        scenes = facts.scenes[(facts.scenes["split"] == split) & facts.scenes["listed"] & facts.scenes["present"]]
        own = frames[frames["split"] == split]
        sizes = sorted({f"{w}x{h}" for w, h in zip(own["width"], own["height"])})
        rows.append(
            {
                "split": split,
                "scenes": len(scenes),
                "frames": len(own),
                "sizes": " ".join(sizes),
                "pixels": int((own["width"] * own["height"]).sum()),
                "holes": _mean(own["holes"]),
                "depth_missing": _mean(own["depth_missing"]),
                "megabytes": round(float(scenes["bytes"].sum()) / 1e6, 1),
                "min_scenes": config.min_scenes.get(split, 0),
            }
        )
    table = pd.DataFrame(rows)
    table["scenes_beyond_minimum"] = table["scenes"] - table["min_scenes"]
    return table


def class_table(facts: Facts, config: CheckDataConfig, classes: Sequence[str]) -> pd.DataFrame:
    """Per class and split: pixels, their share of the split, visible instances and scenes; void comes last."""
    splits = split_table(facts, config).set_index("split")
    seen = facts.segments[facts.segments["pixels"] >= max(config.quota_pixels, 1)]
    rows: list[dict[str, Any]] = []
    for name in classes:
        for split, pixels in splits["pixels"].items():
            own = facts.segments[(facts.segments["class_name"] == name) & (facts.segments["split"] == split)]
            instances = seen[(seen["class_name"] == name) & (seen["split"] == split)]
            count = int(own["pixels"].sum())
            rows.append(
                {
                    "class_name": name,
                    "split": split,
                    "pixels": count,
                    "pixel_share": _share(count, pixels),
                    "instances": len(instances),
                    "scenes": int(instances["scene"].nunique()),
                    "has_quota": split in config.quota_splits,
                }
            )
    for split, pixels in splits["pixels"].items():
        void = int(pixels) - sum(row["pixels"] for row in rows if row["split"] == split)
        row = {"class_name": VOID_ROW, "split": split, "pixels": void, "pixel_share": _share(void, pixels)}
        rows.append({**row, "instances": 0, "scenes": 0, "has_quota": False})
    table = pd.DataFrame(rows)
    table["quota_instances"] = table["instances"].where(table["has_quota"]).astype("Float64")
    return table.drop(columns="has_quota")


def _share(part: int, whole: Any) -> float:
    return round(part / whole, 6) if whole else 0.0


def _mean(values: pd.Series[Any]) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None


def _split_order(name: str, config: CheckDataConfig) -> tuple[int, str]:
    known = list(config.min_scenes)
    return (known.index(name) if name in known else len(known), name)


def rules(config: CheckDataConfig, space: LabelSpace) -> list[Rule]:
    """Every rule of the gate, in the order in which they are told."""
    return [*_scene_rules(config, space), *_frame_rules(config), *_class_rules(config, space)]


def _scene_rules(config: CheckDataConfig, space: LabelSpace) -> list[Rule]:
    def true(name: str, column: str, meaning: str) -> Rule:
        return Rule(name, "scenes", column, "one_of", meaning, values=(True,))

    def between(name: str, column: str, meaning: str, low: float | int | None, high: float | int | None = None) -> Rule:
        return Rule(name, "scenes", column, "between", meaning, low=low, high=high)

    low, high = config.frames_per_scene
    return [
        true("archive_listed", "listed", "every archive in the folder is in the manifest"),
        true("archive_present", "present", "every archive of the manifest is in the folder"),
        Rule("archive_readable", "scenes", "fault", "empty", "header, overlap and surface can be read and trusted"),
        true("archive_digest", "digest_matches", "the archive's SHA-256 is the manifest's"),
        Rule("archive_unique", "scenes", "sha256", "unique", "no archive is there twice"),
        Rule("scene_unique", "scenes", "scene", "unique", "a scene occurs once, in one split"),
        true("scene_name", "name_matches", "scene.json, file and manifest agree on scene and split"),
        true("manifest_facts", "manifest_matches", "dataset, label space, frames and size are as the manifest says"),
        Rule("label_space", "scenes", "label_space", "one_of", "the dataset's label space", values=(space.name,)),
        between("frames_per_scene", "frames", "frames of a scene", low, high),
        true("segment_counts", "counts_match", "pixels and views of each segment are as scene.json counts them"),
        between("overlap_low", "overlap_min", "smallest overlap of two views", 0.0),
        between("overlap_high", "overlap_max", "largest overlap of two views", None, 1.0),
        between("overlap_self", "overlap_diagonal", "overlap of a view with itself", 0.9, 1.0),
        between("overlap_measured", "overlap_error", "stored overlap against projection", 0, config.max_overlap_error),
        between(
            "views_agree", "disagreement", "share of depth that the worst pair disputes", 0, config.max_disagreement
        ),
        between("surface_points", "surface_points", "points of the evaluation surface", config.min_surface_points),
        between("surface_labelled", "surface_labelled", "share of them with a segment", config.min_surface_labelled, 1),
        between("surface_ids", "surface_unknown_ids", "points whose segment scene.json does not know", 0, 0),
    ]


def _frame_rules(config: CheckDataConfig) -> list[Rule]:
    def between(name: str, column: str, meaning: str, bounds: Bounds) -> Rule:
        return Rule(name, "frames", column, "between", meaning, low=bounds[0], high=bounds[1])

    shortest, longest = config.depth_range
    return [
        Rule("frame_readable", "frames", "fault", "empty", "every layer decodes; ids are known to scene.json"),
        Rule("frame_unique", "frames", "color_digest", "unique", "no two frames have the same colours"),
        between("holes", "holes", "share of pixels without segment id", (0.0, config.max_holes)),
        between("depth_missing", "depth_missing", "share of pixels without depth", (0.0, config.max_missing_depth)),
        between("depth_near", "depth_min", "nearest depth, metres", (shortest, None)),
        between("depth_far", "depth_max", "farthest depth, metres", (None, longest)),
        between("focal_length", "focal_x", "fx / width", config.focal_range),
        between("focal_ratio", "focal_ratio", "fy / fx", config.focal_ratio_range),
        between("center_x", "center_x", "cx / width", config.center_range),
        between("center_y", "center_y", "cy / height", config.center_range),
        between("intrinsics_form", "intrinsics_error", "rows below the diagonal are 0, 0, 1", (0.0, 1e-6)),
        between("pose_rigid", "rotation_error", "scan_from_camera: orthonormal, last row 0 0 0 1", (0.0, 1e-3)),
        between("pose_not_mirrored", "determinant", "determinant of the rotation is +1", (0.99, 1.01)),
        between(
            "frame_agrees", "disagreement", "share of depth that all partners dispute", (0, config.max_disagreement)
        ),
    ]


def _class_rules(config: CheckDataConfig, space: LabelSpace) -> list[Rule]:
    few = f"visible instances in {' and '.join(config.quota_splits) or 'no split'}"
    return [
        Rule("class_known", "segments", "class_name", "one_of", "class of the label space", values=space.names),
        Rule("class_kind", "segments", "kind_matches", "one_of", "thing or stuff as its class is", values=(True,)),
        Rule("scenes_per_split", "splits", "scenes_beyond_minimum", "between", "scenes beyond min_scenes", low=0),
        Rule("class_quota", "classes", "quota_instances", "between", few, low=config.quota_instances),
    ]


def judge(facts: Facts, config: CheckDataConfig, space: LabelSpace, data_docs: Path | None = None) -> Verdict:
    """Let Great Expectations judge every rule.

    Args:
        space: of the dataset: its classes are the known ones, and each has a quota.
        data_docs: folder for its own pages, an extra: they look better with a network. None leaves them out.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.delete_data_docs_site("local_site")  # would be written to the system's temporary folder
    if data_docs is not None:
        context.add_data_docs_site("rules", _site(data_docs))
    source = context.data_sources.add_pandas("facts")
    judged: dict[str, tuple[int, list[Violation]]] = {}
    every = rules(config, space)
    for table, rows in tables(facts, config, space).items():
        own = [rule for rule in every if rule.table == table]
        suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=[_expectation(rule) for rule in own]))
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        results = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": rows},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": _PLACE[table]},
        )
        by_name = {rule.name: rule for rule in own}
        for one in results.results:
            rule = by_name[one.expectation_config.meta["rule"]]
            count = len(rows) if rule.kind == "empty" else int(rows[rule.column].notna().sum())
            judged[rule.name] = (count, _violations(rule, one))
    if data_docs is not None:
        context.build_data_docs()
    violations = [violation for rule in every for violation in judged[rule.name][1]]
    return Verdict(every, [judged[rule.name][0] for rule in every], violations, space.names)


def _site(folder: Path) -> dict[str, Any]:
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    return {
        "class_name": "SiteBuilder",
        "store_backend": store,
        "site_index_builder": index,
        "show_how_to_buttons": False,
    }


def _expectation(rule: Rule) -> Any:
    import great_expectations.expectations as gxe

    about: dict[str, Any] = {"column": rule.column, "meta": {"rule": rule.name}, "notes": rule.meaning}
    if rule.kind == "between":
        return gxe.ExpectColumnValuesToBeBetween(min_value=rule.low, max_value=rule.high, **about)
    if rule.kind == "one_of":
        return gxe.ExpectColumnValuesToBeInSet(value_set=list(rule.values), **about)
    if rule.kind == "empty":
        return gxe.ExpectColumnValuesToBeNull(**about)
    return gxe.ExpectColumnValuesToBeUnique(**about)


def _violations(rule: Rule, result: Any) -> list[Violation]:
    if result.success:
        return []
    places = result.result.get("unexpected_index_list")
    if not places:
        return [Violation(rule.name, {}, f"could not be judged: {result.exception_info}")]
    found = []
    for place in places:
        names = {key: str(place[key]) for key in _PLACE[rule.table] if key in place}
        found.append(Violation(rule.name, names, _value(rule, place[rule.column])))
    return sorted(found, key=lambda one: (*one.place.values(), one.value))


def _value(rule: Rule, value: Any) -> str:
    """What was found and what was expected, in words."""
    if rule.kind == "empty":
        return str(value)
    if rule.kind == "unique":
        return f"{rule.meaning}; {rule.column} {str(value)[:16]} occurs more than once"
    if rule.kind == "one_of":
        return f"found {value}; {rule.meaning}"
    bounds = f"at least {rule.low:g}" if rule.high is None else f"at most {rule.high:g}"
    if rule.low is not None and rule.high is not None:
        bounds = f"{rule.low:g} to {rule.high:g}"
    return f"{rule.column} is {float(value):g}, expected {bounds} ({rule.meaning})"


def sample(violations: Sequence[Violation], limit: int) -> list[Violation]:
    """The first `limit` violations, taken from every rule in turn, so that no rule hides another."""
    by_rule: dict[str, list[Violation]] = {}
    for violation in violations:
        by_rule.setdefault(violation.rule, []).append(violation)
    in_turn = [one for turn in zip_longest(*by_rule.values()) for one in turn if one is not None][:limit]
    chosen = {id(violation) for violation in in_turn}
    return [violation for violation in violations if id(violation) in chosen]


def told(violations: Sequence[Violation], limit: int = 20) -> str:
    """The first violations, one a line, and how many more there are."""
    lines = [str(violation) for violation in sample(violations, limit)]
    if len(violations) > len(lines):
        lines.append(f"and {len(violations) - len(lines)} more")
    return "\n  ".join(lines)
