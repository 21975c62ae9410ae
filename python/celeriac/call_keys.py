"""Keys from the arguments of a call.

A template such as ``"product:{id}"`` or ``"user:{user.pk}"`` is filled with the call's arguments by
name, defaults included, as `str.format` does. A callable makes the key from the arguments itself.
Where neither is given the key is derived: the function's name and all arguments, by value. Only
what has a value that means the same in every process can be in it: plain data, dates, enums,
classes, dataclasses, and objects with a primary key (``pk``).

The name is the function's module and qualified name; of a script, ``__main__``, its file instead.
A function inside of another has its line beside it and the values that it closes over, as they are
when it is decorated, since each call of the outer one makes another. What has no name that is its
own (lambdas, partials, bound methods, objects that can be called) needs a key, and so does what
closes over something that has no plain value and no such name.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import inspect
import re
import string
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any, Final

from celeriac.errors import ConfigurationError
from celeriac.patterns import escape

_BY_REPR: Final = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    decimal.Decimal,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    uuid.UUID,
    range,
    slice,
)
_SHORT: Final = re.compile(r"[!-~]{0,120}\Z")
_GLOB: Final = re.compile(r"[*?\[]")


class _Escaping(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return escape(str(super().format_field(value, format_spec)))


def name_of(function: object) -> str:
    """What to call a function in a message; not everything that can be called has a name."""
    return getattr(function, "__qualname__", None) or repr(function)


def own_name(function: Callable[..., Any]) -> str:
    """What derived keys begin with. Raises ConfigurationError where others may have it as well."""
    try:
        return _own_name(function, ())
    except TypeError as error:
        raise ConfigurationError(
            f"no key can be derived for {name_of(function)}: {error}, so that different functions "
            'would share their entries; give key= a template ("name:{argument}") or a callable'
        ) from None


def _own_name(function: object, outer: tuple[object, ...]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(f"a {type(function).__name__} has no name of its own")
    if inspect.ismethod(function):
        raise TypeError("a bound method has the name of every other object's")
    if "<lambda>" in name:
        raise TypeError("all lambdas of a place have the same name")
    if module == "__main__":
        module = getattr(sys.modules.get("__main__"), "__file__", None)
        if module is None:
            raise TypeError("what is typed into an interpreter is called __main__ in each of them")
    if "<locals>" not in name:
        return f"{module}.{name}"
    code = getattr(function, "__code__", None)
    if code is None:
        raise TypeError("what a function makes has the same name at each of its calls")
    text = ",".join([str(code.co_firstlineno), *_closed_over(function, code, (*outer, function))])
    return f"{module}.{name}[{text if _SHORT.match(text) else _digest(text)}]"


def _closed_over(function: Any, code: CodeType, outer: tuple[object, ...]) -> Iterator[str]:
    """The values of a function's free variables. Raises TypeError for one that isn't plain."""
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not set yet
            continue
        if isinstance(value, ModuleType):
            text = value.__name__
        elif any(value is function for function in outer):
            text = "itself"
        elif callable(value) and not isinstance(value, type):
            text = _own_name(value, outer)
        else:
            try:
                text = _rendered(value)
            except TypeError as error:
                raise TypeError(f"its {variable!r} from outside is {error}") from None
        yield f"{variable}={text}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Arguments:
    """The arguments of a function's calls, by name."""

    __slots__ = ("_defaults", "_names", "_open", "_signature", "_variable", "function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            self._signature = inspect.signature(function)
        except ValueError as error:  # of some that are written in C
            raise ConfigurationError(
                f"{name_of(function)} says nothing about its arguments ({error}): wrap it in a "
                "function that names them"
            ) from None
        parameters = self._signature.parameters.values()
        self._names = [p.name for p in parameters]
        self._variable = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._open = self._variable is not None
        self._defaults: tuple[Any, ...] | None = None  # None: calls must be looked at closely
        if all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
            self._defaults = tuple(p.default for p in parameters)

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the defaults. Raises TypeError as the call itself would."""
        if self._defaults is not None and not kwargs and len(args) <= len(self._defaults):
            rest = self._defaults[len(args) :]
            if not any(value is inspect.Parameter.empty for value in rest):
                return dict(zip(self._names, (*args, *rest), strict=True))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = dict(bound.arguments)
        if self._variable is not None:
            named.update(named.pop(self._variable))
        return named

    def check(self, template: str, what: str) -> None:
        """Raises ConfigurationError for a template that these calls can't fill."""
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ConfigurationError(f"{what} {template!r} is no template: {error}") from None
        for _, field, _, _ in parts:
            if field is None:
                continue
            name = re.split(r"[.\[]", field, maxsplit=1)[0]
            if name == self._variable:
                raise ConfigurationError(
                    f"{what} {template!r}: {name_of(self.function)}() has any number of arguments "
                    f"in {name!r}: name one of them, without {name!r}"
                )
            if name not in self._names and not (self._open and name.isidentifier()):
                known = [name for name in self._names if name != self._variable]
                raise ConfigurationError(
                    f"{what} {template!r}: {name_of(self.function)}() has no argument "
                    f"{name!r}; it has {', '.join(known) or 'none'}"
                )


def is_pattern(template: str) -> bool:
    """Whether the text of a template, not what is filled in, has glob characters."""
    return any(_GLOB.search(text) for text, _, _, _ in string.Formatter().parse(template))


def fill(template: str, named: Mapping[str, Any], *, pattern: bool = False) -> str:
    """The template with the arguments; in a pattern they stand for themselves."""
    return _Escaping().vformat(template, (), named) if pattern else template.format_map(named)


def derived(name: str, named: Mapping[str, Any]) -> str:
    """A key of a function's own name and the arguments. Raises TypeError that names one."""
    parts = []
    for argument, value in named.items():
        try:
            shown = argument if argument.isidentifier() else repr(argument)  # of ** it may be any
            parts.append(f"{shown}={_rendered(value)}")
        except RecursionError:
            raise TypeError(
                f"no key can be derived for {name}(): its argument {argument!r} is nested too "
                "deeply, or holds itself; give key= a template or a callable"
            ) from None
        except TypeError as error:
            raise TypeError(
                f"no key can be derived for {name}(): its argument {argument!r} has "
                f"{error}; give key= a template or a callable"
            ) from None
    text = ",".join(parts)
    if not _SHORT.match(text):
        text = _digest(text)
    return f"{name}:{text}"


def _rendered(value: Any) -> str:
    kind = type(value)
    if kind in _BY_REPR:
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{kind.__module__}.{kind.__qualname__}.{value.name}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if kind in (list, tuple):
        inner = ",".join(map(_rendered, value))
        return f"[{inner}]" if kind is list else f"({inner},)"
    if kind in (set, frozenset):
        return f"{{{','.join(sorted(map(_rendered, value)))}}}"
    if kind is dict:
        items = sorted(f"{_rendered(key)}:{_rendered(item)}" for key, item in value.items())
        return f"{{{','.join(items)},}}"
    if isinstance(value, str):
        return repr(str(value))
    name = f"{kind.__module__}.{kind.__qualname__}"
    if getattr(value, "pk", None) is not None:
        return f"{name}({_rendered(value.pk)})"
    if dataclasses.is_dataclass(value):
        fields = [_rendered(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return f"{name}({','.join(fields)})"
    raise TypeError(f"a {name}")
