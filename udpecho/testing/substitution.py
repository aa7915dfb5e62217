"""Puts one object in the place of another one in all modules that are imported, also where they have bound it to a name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from types import FunctionType, ModuleType
from typing import Any

from twisted.internet.abstract import FileDescriptor

#: What may have others inside.
_wrapping = (FunctionType, type, staticmethod, classmethod, property, functools.partial)
#: Modules have their own turn. Ports and connections of the real reactor keep it, to be closed by it.
_kept = (ModuleType, FileDescriptor)


class Substitution:
    """Objects and what takes their place, by identity."""

    def __init__(self, pairs: list[tuple[object, object]]) -> None:
        """@param pairs: each object, with what takes its place."""
        self._new = {id(old): new for old, new in pairs}
        # Objects that are compared by identity must live.
        self._pairs = pairs
        self._seen: set[int] = set()

    def run(self, spared: frozenset[str]) -> None:
        """Look through all modules: at their globals; at attributes, methods and nested classes of their classes; at defaults
        and closures of functions; at partial functions, and at attributes of objects that are global.

        @param spared: the packages and modules that are left as they are.
        """
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and spared.isdisjoint(accumulate(name.split("."), "{}.{}".format)):
                self._inNamespace(vars(module))
        self._seen.clear()

    def _inNamespace(self, namespace: dict[str, Any]) -> None:
        new = self._new
        for name, value in list(namespace.items()):
            if id(value) in new:
                namespace[name] = new[id(value)]
            elif isinstance(value, _wrapping):
                self._inside(value)
            elif type(value).__dictoffset__ and not isinstance(value, _kept):
                self._inObject(value)

    def _inside(self, value: Any) -> None:
        """Look at a function, a class, or what wraps one."""
        if isinstance(value, FunctionType):
            if value.__closure__ or value.__defaults__ or value.__kwdefaults__:
                self._inFunction(value)
        elif isinstance(value, type):
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._inClass(value)
        elif isinstance(value, (staticmethod, classmethod)):
            self._inside(value.__func__)
        elif isinstance(value, property):
            for function in (value.fget, value.fset, value.fdel):
                self._inside(function)
        elif isinstance(value, functools.partial):
            self._inside(value.func)
            arguments = tuple(self._of(each) for each in value.args)
            keywords = {name: self._of(each) for name, each in value.keywords.items()}
            setstate: Any = value.__setstate__  # type: ignore[attr-defined]
            setstate((value.func, arguments, keywords, vars(value)))

    def _of(self, value: object) -> object:
        return self._new.get(id(value), value)

    def _inFunction(self, function: FunctionType) -> None:
        new = self._new
        defaults = function.__defaults__
        if defaults and any(id(value) in new for value in defaults):
            function.__defaults__ = tuple(map(self._of, defaults))
        if function.__kwdefaults__:
            for name, value in function.__kwdefaults__.items():
                function.__kwdefaults__[name] = self._of(value)
        if function.__closure__ and id(function) not in self._seen:
            self._seen.add(id(function))
            for cell in function.__closure__:
                with suppress(ValueError):
                    # An empty one has nothing to look at.
                    value = cell.cell_contents
                    if id(value) in new:
                        cell.cell_contents = new[id(value)]
                    else:
                        self._inside(value)

    def _inClass(self, kind: type) -> None:
        for name, value in list(_attributes(kind)):
            if id(value) in self._new:
                # Built-in classes, and some with a metaclass, cannot be changed.
                with suppress(AttributeError, TypeError):
                    setattr(kind, name, self._new[id(value)])
            elif isinstance(value, staticmethod) and id(value.__func__) in self._new:
                with suppress(AttributeError, TypeError):
                    setattr(kind, name, staticmethod(self._new[id(value.__func__)]))  # type: ignore[arg-type]
            elif isinstance(value, _wrapping):
                self._inside(value)

    def _inObject(self, value: object) -> None:
        """Look at the attributes of a global object."""
        try:
            attributes = object.__getattribute__(value, "__dict__")
            for name, each in attributes.items():
                if id(each) in self._new:
                    attributes[name] = self._new[id(each)]
        except Exception:
            # Such an object may stand for another one that is not there.
            pass


def _attributes(kind: type) -> Iterator[tuple[str, Any]]:
    attributes: Mapping[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return iter(attributes.items())
