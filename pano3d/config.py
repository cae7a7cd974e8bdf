"""params/ -> frozen dataclasses, once, at the door; the only importer of Hydra and OmegaConf.

A schema is a frozen dataclass beside the class it configures. `load` fills it from YAML and refuses what it does not
know; below that door nobody sees a DictConfig. `compose` turns the groups of params/ into one plain mapping.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, overload

from pano3d.types import ConfigError

Schema = TypeVar("Schema")


@overload
def load(source: str | Path | Mapping[str, Any], schema: type[Schema], section: str = "") -> Schema: ...
@overload
def load(source: str | Path | Mapping[str, Any], schema: object, section: str = "") -> Any: ...
def load(source: str | Path | Mapping[str, Any], schema: Any, section: str = "") -> Any:
    """Fill a dataclass from a YAML file or a mapping.

    Understands nested dataclasses, `X | None` and other unions, Literal, list, tuple, dict[str, X], Path and the plain
    types. An integer is taken where a float is wanted; nothing else is converted.

    Args:
        source: a YAML file or an already read mapping.
        schema: a dataclass, or a union of dataclasses told apart by their Literal fields.
        section: dotted key of the part to load; the whole by default.

    Raises:
        ConfigError: a key is unknown, missing or mistyped, or the dataclass refuses the values. Names file and key.
    """
    where = "" if isinstance(source, Mapping) else str(source)
    value: Any = dict(source) if isinstance(source, Mapping) else read(source)
    for part in filter(None, section.split(".")):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{_place(where, section)}: there is no section {part!r}{_accepted(value)}")
        value = value[part]
    return _convert(value, schema, where, section)


def read(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, interpolations resolved.

    Raises:
        ConfigError: the file is missing, is not YAML or does not hold a mapping.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as error:
        raise ConfigError(f"reading {path}: no such file; run `dvc repro compose`, or check the path") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"reading {path}: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"reading {path}: expected a mapping of names to values, found {type(value).__name__}")
    return typing.cast("dict[str, Any]", value)


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping of plain values as YAML, keys in the given order, in one step."""
    from omegaconf import OmegaConf

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(value))), encoding="utf-8")
    partial.replace(path)


def plain(value: Any) -> Any:
    """The same configuration as dicts, lists, strings and numbers: what YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of plain values: the same for every order of the keys."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def compose(params: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Let Hydra put the groups of `params` together.

    Args:
        params: folder with config.yaml and its groups.
        overrides: Hydra's grammar: `dataset=rooms`, `joint_finetune.steps=10`.

    Raises:
        ConfigError: a group, an option or an override does not exist, or a value stays unset.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(params.resolve()), version_base=None):
            composed = hydra_compose("config", overrides=list(overrides))
        value = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: Hydra, of `group=null`
        raise ConfigError(f"composing {params} with {' '.join(overrides) or 'no overrides'}: {error}") from error
    return typing.cast("dict[str, Any]", value)


def _convert(value: Any, wanted: Any, where: str, key: str) -> Any:
    """`value` as `wanted`, or a ConfigError that names file and key."""
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return _fill(value, wanted, where, key)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, key)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise _mistyped(value, "one of " + ", ".join(map(str, arguments)), where, key)
    if origin in (list, tuple) or wanted in (list, tuple):
        return _convert_sequence(value, origin or wanted, arguments, where, key)
    if origin in (dict, Mapping) or wanted is dict:
        if not isinstance(value, Mapping):
            raise _mistyped(value, "a mapping", where, key)
        item = arguments[1] if arguments else Any
        return {name: _convert(entry, item, where, _join(key, str(name))) for name, entry in value.items()}
    return _convert_scalar(value, wanted, where, key)


def _convert_scalar(value: Any, wanted: Any, where: str, key: str) -> Any:
    if wanted is Any or wanted is object:
        return value
    if wanted in (None, type(None)):
        if value is None:
            return None
        raise _mistyped(value, "null", where, key)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if isinstance(wanted, type) and isinstance(value, wanted) and not (wanted is not bool and isinstance(value, bool)):
        return value
    raise _mistyped(value, getattr(wanted, "__name__", str(wanted)), where, key)


def _convert_sequence(value: Any, kind: Any, items: tuple[Any, ...], where: str, key: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _mistyped(value, "a list", where, key)
    if kind is tuple and items and not (len(items) == 2 and items[1] is Ellipsis):
        if len(value) != len(items):
            raise _mistyped(value, f"a list of {len(items)}", where, key)
        wanted: Sequence[Any] = items
    else:
        wanted = [items[0] if items else Any] * len(value)
    return kind(_convert(item, one, where, f"{key}[{index}]") for index, (item, one) in enumerate(zip(value, wanted)))


def _convert_union(value: Any, members: tuple[Any, ...], where: str, key: str) -> Any:
    """The first member that takes the value; of several dataclasses, the one whose Literal fields agree with it."""
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    named = [member for member in members if dataclasses.is_dataclass(member) and _names(value, member)]
    if len(members) == 1 or len(named) == 1:
        return _convert(value, named[0] if named else members[0], where, key)
    refusals = []
    for member in members:
        try:
            return _convert(value, member, where, key)
        except ConfigError as error:
            refusals.append(str(error))
    raise ConfigError("; or ".join(refusals))


def _names(value: Any, schema: Any) -> bool:
    """Whether a mapping carries the Literal fields (its `name`, its `kind`) of a dataclass."""
    hints = typing.get_type_hints(schema)
    tags = {field: hint for field, hint in hints.items() if typing.get_origin(hint) is Literal}
    given = {field: value[field] for field in tags if isinstance(value, Mapping) and field in value}
    return bool(given) and all(choice in typing.get_args(tags[field]) for field, choice in given.items())


def _fill(value: Any, schema: Any, where: str, key: str) -> Any:
    if isinstance(value, schema):
        return value
    if not isinstance(value, Mapping):
        raise _mistyped(value, f"a mapping with the keys of {schema.__name__}", where, key)
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    for name in value:
        if name not in fields:
            raise ConfigError(f"{_place(where, _join(key, str(name)))}: unknown key{_accepted(fields, str(name))}")
    filled = {name: _convert(item, hints[name], where, _join(key, name)) for name, item in value.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ConfigError(f"{_place(where, _join(key, name))}: this key is required{_accepted(fields)}")
    try:
        return schema(**filled)
    except ConfigError as error:
        raise ConfigError(f"{_place(where, key)}: {error}") from error


def _mistyped(value: Any, wanted: str, where: str, key: str) -> ConfigError:
    hint = ""
    if isinstance(value, str) and wanted in ("float", "int"):
        hint = "; YAML reads it as text, write numbers like 1.0e-3 without quotes"
    return ConfigError(f"{_place(where, key)}: expected {wanted}, found {value!r} ({type(value).__name__}){hint}")


def _accepted(known: Any, wrong: str = "") -> str:
    names = [str(name) for name in known] if isinstance(known, Mapping) else []
    close = difflib.get_close_matches(wrong, names, n=1) if wrong else []
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant} (accepted: {', '.join(names) or 'none'})"


def _place(where: str, key: str) -> str:
    return ": ".join(part for part in (where, key) if part) or "configuration"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
