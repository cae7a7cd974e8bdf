"""`pano3d <stage>` and the user's commands: parses, calls, prints, exits. Imports a command's room only when called.

A stage is a module of pano3d/stages with `run(params: Path, ...) -> None`; its parameters are its options. A command is
a module of pano3d/commands with `add_arguments(parser)` and `main(args) -> int`. Adding one is one line in a table.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from pano3d.processes import die_with_parent, exit_on_sigterm, silence_telemetry

OK, USER_ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

STAGES = {
    "compose": "params/ put together, one effective file per backbone",
    "prepare": "raw dataset or seed to scene archives with a manifest",
    "check_data": "measure every archive and stop where a rule is broken",
    "geometry_init": "a backbone that knows rooms, before any label is shown to it",
    "joint_finetune": "geometry and labels train the multi-view decoder and the mask decoder together",
    "geometry_control": "the same further steps without labels: what the joint model is held against",
    "evaluate": "all models of a backbone against the validation scenes",
    "compare_confidence": "what joint training does to the confidence map",
    "report": "everything measured, on one self-contained page",
}

COMMANDS = {
    "reconstruct": "photos, a video or a scene archive to a labelled 3D scene",
    "view": "a reconstruction in the browser, interactively",
    "stream": "reconstruct from a folder while it is being filled",
    "compare": "two results or models on the same input, side by side",
    "score": "the evaluate metrics of any model on any scene archives",
    "doctor": "check the installation and say how to mend what is wrong",
    "completion": "a completion script for bash, zsh or tcsh",
    "bench": "how fast, how lean, how it grows, against plain twins and the machine's ceilings",
    "summary": "the numbers of a reproduction, and where to look further",
    "verify": "compare a reproduction's metrics with the committed ones",
    "import-weights": "an official MUSt3R or Pi3 checkpoint as a model folder of ours",
    "export-weights": "a model's backbone in the layout MUSt3R or Pi3 are released in",
    "split-patches": "a model with smaller patches, which sees smaller things and takes longer",
    "grow": "a larger network that answers as a given model does, to go on learning from",
    "text-classes": "a file of named text embeddings from a CLIP or SigLIP text tower",
    "release": "a trained model as half-precision weights with a measured card, for weights/",
    "ablation-table": "the runs of an ablation as a table, a figure and MLflow runs",
    "fingerprint": "names, sizes and digests of a dataset's raw files, for DVC to depend on",
    "register": "give the reproduction's models a version in the registry",
    "promote": "make a registered version the champion, if the gate lets it",
    "rollback": "make the previous champion the champion again",
    "trace": "the commit, data and parameters behind a registered version, and how to restore them",
}

_EPILOG = """exit codes: 0 done; 1 something you can mend, said in one line (PANO3D_DEBUG=1 adds the traceback);
2 wrong usage; 130 interrupted; 143 ended by SIGTERM, in good order"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    silence_telemetry()
    name = words[0] if words else ""
    if name in STAGES:
        die_with_parent()
    exit_on_sigterm()
    try:
        parser, call = _parser(name)
        parsed = parser.parse_args(words)
        if not name:
            parser.print_help()
            return USAGE
        return call(parsed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except _mendable() as error:
        if os.environ.get("PANO3D_DEBUG"):
            raise
        print(f"pano3d {name}: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", USER_ERROR))


def _mendable() -> tuple[type[Exception], ...]:
    """What is told in one line. Looked up only once something was raised: `--help` need not import torch for it."""
    nouns = sys.modules.get("pano3d.types")
    return (OSError,) if nouns is None else (OSError, nouns.Pano3DError)


def _parser(name: str) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
    """The whole parser, with the arguments of the one command that was asked for."""
    parser = argparse.ArgumentParser(
        prog="pano3d",
        description="Unposed photos of a room to a 3D reconstruction and its 3D panoptic segmentation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    children = parser.add_subparsers(metavar="command", dest="command")
    subparsers = {
        one: children.add_parser(
            one, help=text, description=text, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for one, text in (STAGES | COMMANDS).items()
    }
    call: Callable[[argparse.Namespace], int] = _nothing
    if name in STAGES:
        call = _add_stage(subparsers[name], importlib.import_module(f"pano3d.stages.{name}"))
    elif name in COMMANDS:
        module = _command(name)
        module.add_arguments(subparsers[name])
        call = module.main
        # Only what writes completions wants every command's arguments, and pays for their imports.
        subparsers[name].set_defaults(whole_parser=_whole_parser)
    return parser, call


def _whole_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of all commands."""
    parser, _ = _parser("")
    children = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name in STAGES:
        _add_stage(children.choices[name], importlib.import_module(f"pano3d.stages.{name}"))
    for name in COMMANDS:
        _command(name).add_arguments(children.choices[name])
    return parser


def _command(name: str) -> types.ModuleType:
    return importlib.import_module(f"pano3d.commands.{name.replace('-', '_')}")


def _nothing(parsed: argparse.Namespace) -> int:
    return OK


def _add_stage(parser: argparse.ArgumentParser, module: types.ModuleType) -> Callable[[argparse.Namespace], int]:
    """Options from the signature of `run`: the first parameter is positional, the others are `--name value`."""
    hints = typing.get_type_hints(module.run)
    parameters = list(inspect.signature(module.run).parameters.values())
    for index, parameter in enumerate(parameters):
        kind = _scalar(hints[parameter.name])
        if index == 0:
            parser.add_argument(parameter.name, type=kind)
            continue
        required = parameter.default is inspect.Parameter.empty
        option = f"--{parameter.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, required=required, default=None if required else parameter.default)

    def call(parsed: argparse.Namespace) -> int:
        module.run(**{parameter.name: getattr(parsed, parameter.name) for parameter in parameters})
        return OK

    return call


def _scalar(hint: object) -> type:
    """`X` or `X | None` -> X, which must be one of the types a word can be read as."""
    members = [member for member in typing.get_args(hint) if member is not type(None)] or [hint]
    if len(members) != 1 or members[0] not in (Path, str, int, float):
        raise TypeError(f"a stage takes Path, str, int or float, not {hint}")
    return typing.cast(type, members[0])
