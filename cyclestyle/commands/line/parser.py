"""One parser for every command: the options of a typed function, errors in one line, old names accepted."""

import inspect
import os
import sys
from collections import abc
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import (  # type: ignore[attr-defined]  # exported without __all__
    ActionConfigFile,
    ActionYesNo,
    ArgumentParser,
    get_loader,
    set_dumper,
    set_loader,
)

from cyclestyle.commands.line.errors import one_line
from cyclestyle.commands.line.suggestions import suggestion
from cyclestyle.errors import CycleStyleError
from cyclestyle.weights.upgrade import RENAMED_ARGUMENTS, RENAMED_TASKS

RENAMED_CLASSES = {
    **{f"{package}{old}": new for old, new in RENAMED_TASKS.items() for package in ("", "cyclestyle.tasks.")},
    "cyclestyle.callbacks.WholeCheckpointIO": "cyclestyle.training.AtomicCheckpointIO",
}
"""Classes in the configs of earlier versions, and the names that they have now."""
LOGGERS = ("CSVLogger", "WandbLogger", "TensorBoardLogger", "MLFlowLogger")
ALIASES = {
    f"{package}{name}": f"cyclestyle.training.{name}"
    for package in ("", "pytorch_lightning.loggers.", "lightning.pytorch.loggers.")
    for name in LOGGERS
}
"""Loggers of Lightning, which stand for those of this package: these resume, and write to the folder of the run."""
MOVED = ("cyclestyle.callbacks.", "cyclestyle.training.")
"""The package of callbacks and loggers in the configs of earlier versions, and the one of this version."""
RENAMED_SETTINGS = {("grid", "pictures"): "images"}
"""Settings in the configs of earlier versions, and the names that they have now."""
GONE_SETTINGS = {"compile": "tune.compile", "channels_last": "tune.channels_last"}
"""Settings of models in the configs of earlier versions, and the options that do the same now."""

_noticed: set[str] = set()


class Parser(ArgumentParser):
    """Reports an unknown key or a wrong type in one line, and reads configs of earlier versions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": "cyclestyle", **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a CycleStyleError that names the option and what is wrong with it."""
        text = one_line(message)
        raise CycleStyleError(text + suggestion(text, self.option_names())) from ex

    def _check_value_key(self, action: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Take one value in a config for a list of one, as on the command line."""
        one_word = action.nargs == "+" and isinstance(value, str)
        return super()._check_value_key(action, [value] if one_word else _as_list(action, value), *args, **kwargs)

    def _get_values(self, action: Any, arg_strings: list[str]) -> Any:
        """Take one value on the command line for a list of one: `--data.train_A photos`."""
        return _as_list(action, super()._get_values(action, arg_strings))

    def option_names(self) -> list[str]:
        """Return the options of this parser, or of the command that it has parsed, such as `trainer.max_epochs`."""
        parsers = [self, *(self._subcommands_action.choices.values() if self._subcommands_action else ())]
        words = [word for parser in parsers for action in parser._actions for word in action.option_strings]
        return sorted({word[2:] for word in words if word.startswith("--")})


def call(function: Callable[..., int], name: str, args: Sequence[str]) -> int:
    """Parse the words of a command line into the parameters of a typed function, and call it.

    The docstring of the function describes the command and its options.
    """
    check_configs(args)
    parser = Parser(prog=f"cyclestyle {name}", description=(inspect.getdoc(function) or "").split("\n\nArgs:")[0])
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with any of these options")
    add_parameters(parser, function)
    built = parser.instantiate_classes(parser.parse_args(list(args)))
    return function(**{key: built.get(key) for key in inspect.signature(function).parameters})


def add_parameters(parser: Parser, function: Callable[..., Any]) -> None:
    """Add an option for each parameter of a function or field of a dataclass.

    Lists take several words, and parameters before the `*` are positional.
    """
    hints, descriptions = get_type_hints(function), parameter_descriptions(function)
    parameters = inspect.signature(function).parameters
    special: set[Any] = {
        key for key in parameters if _item(hints[key]) or hints[key] is bool or _positional(parameters[key])
    }
    add = parser.add_class_arguments if inspect.isclass(function) else parser.add_function_arguments
    add(function, skip=special, sub_configs=True)
    for key in (key for key in parameters if key in special):
        default = parameters[key].default
        required = default is inspect.Parameter.empty
        options: dict[str, Any] = {"help": descriptions.get(key, "")}
        if hints[key] is bool:
            options |= {"action": ActionYesNo}
        elif _positional(parameters[key]):
            options |= {"type": hints[key], **({} if required else {"nargs": "?"})}
        else:
            options |= {"nargs": "+", "type": _item(hints[key])}
        if not required:
            options["default"] = default
        elif not _positional(parameters[key]):
            options["required"] = True
        parser.add_argument(key if _positional(parameters[key]) else f"--{key}", **options)


def parameter_descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each parameter in a docstring."""
    from docstring_parser import parse  # jsonargparse needs it too

    found = parse(inspect.getdoc(function) or "").params
    return {one.arg_name: (one.description or "").replace("\n", " ").replace("%", "%%") for one in found}


def import_class(path: str) -> Any:
    """Return the class that a config names by its full path, after the parser has accepted it."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def check_configs(args: Sequence[str]) -> None:
    """Name the config that is not valid YAML, which the message of the parser does not.

    Raises:
        CycleStyleError: a file given by --config or -c cannot be parsed.
    """
    for path in config_files(args):
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CycleStyleError(f"{path} is not valid YAML: {one_line(str(error))}") from error
        if content is None:
            raise CycleStyleError(f"{path} is empty; expected options such as `trainer: {{max_epochs: 10}}`")
        if not isinstance(content, dict):
            raise CycleStyleError(f"{path} holds {one_line(str(content))[:40]!r}, not options with their values")


def config_files(args: Sequence[str]) -> list[Path]:
    """Return the files that are given by --config or -c."""
    words = [word for arg in args for word in arg.split("=", 1)]
    named = [Path(value) for option, value in pairwise(words) if option in ("--config", "-c")]
    return [path for path in named if path.is_file()]


def _item(hint: Any) -> type | None:
    """The type of the items of a list of plain values, optional or not; None for anything else."""
    candidates = [hint, *get_args(hint)]
    for candidate in candidates:
        if get_origin(candidate) is list and get_args(candidate)[0] in (str, int, float):
            item: type = get_args(candidate)[0]
            return item
    return None


def _as_list(action: Any, value: Any) -> Any:
    """Return a list of one value, where a list is expected and one value is given; any other value as it is."""
    hint = getattr(action, "_typehint", None)  # of an argument of a class
    kinds = [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    only_lists = all(get_origin(kind) in (list, abc.Sequence) for kind in kinds)
    if not only_lists or not isinstance(value, str | int | float) or value == "":
        return value
    parsed = yaml.safe_load(value) if isinstance(value, str) and value[0] in "[{0123456789-.nN~" else value
    if parsed is None or isinstance(parsed, list | dict):
        return value
    return [value if get_args(kinds[0])[0] is str else parsed]


def _positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def _load_yaml(text: str) -> Any:
    """Parse YAML, and bring the names of earlier versions to those of this one."""
    return _renamed(_yaml(text))


def _renamed(value: Any) -> Any:
    if isinstance(value, str) and value in RENAMED_CLASSES:
        return _notice(value, RENAMED_CLASSES[value])
    if isinstance(value, str):  # called for names of classes only
        return ALIASES.get(value, value.replace(*MOVED) if value.startswith(MOVED[0]) else value)
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, dict):
        return value
    classes = ("class_path", "model", "logger")
    renamed = {
        key: _renamed(one) if key in classes or not isinstance(one, str) else os.path.expanduser(one)
        for key, one in value.items()
    }
    model = renamed.get("model")
    if isinstance(model, dict) and isinstance(model.get("init_args"), dict):
        for name in GONE_SETTINGS.keys() & model["init_args"].keys():
            if model["init_args"].pop(name):
                text = f"cyclestyle: model.{name} is left out; --{GONE_SETTINGS[name]} true does it now"
                print(text, file=sys.stderr)
    trainer = renamed.get("trainer")
    if isinstance(trainer, dict) and isinstance(trainer.get("callbacks"), list):
        # Configs add their callbacks to those of the configs before, instead of replacing them.
        renamed["trainer"] = {f"{key}+" if key == "callbacks" else key: one for key, one in trainer.items()}
    for (group, old), new in RENAMED_SETTINGS.items():
        settings = renamed.get(group)
        if isinstance(settings, dict) and old in settings:
            renamed[group] = {_notice(key, new) if key == old else key: one for key, one in settings.items()}
    for (task, old), new in RENAMED_ARGUMENTS.items():
        settings = renamed.get("init_args")
        named = str(renamed.get("class_path")).rpartition(".")[2]
        if named == task and isinstance(settings, dict) and old in settings:
            renamed["init_args"] = {_notice(key, new) if key == old else key: one for key, one in settings.items()}
    return renamed


def _notice(old: str, new: str) -> str:
    if old not in _noticed:
        _noticed.add(old)
        print(f"cyclestyle: {old} is called {new} now", file=sys.stderr)
    return new


_yaml = get_loader("yaml")


class _Dumper(yaml.SafeDumper):
    """Writes enums of strings, which some callbacks of Lightning have as defaults, as strings."""


_Dumper.add_multi_representer(str, lambda dumper, value: dumper.represent_str(str(value)))
set_loader("cyclestyle", _load_yaml, (yaml.YAMLError,))
set_dumper("cyclestyle", lambda data: yaml.dump(data, Dumper=_Dumper, default_flow_style=False, sort_keys=False))
