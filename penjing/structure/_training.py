"""Does training run other code than evaluation? Read from the source of the network's own methods.

Handing `self.training` to torch's functions (dropout) or choosing between numbers by it changes no structure; a
branch on it may, and then the training forward is followed as well. What cannot be read counts as a branch.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.core._graph import Graph
from penjing.structure._rules import is_pointwise
from penjing.structure._walk import each_path

aten = torch.ops.aten
_DEPTH = 4  # calls followed into
_FACTORIES = {
    aten.empty,
    aten.rand,
    aten.new_empty,
    aten.bernoulli,
    aten.bernoulli_,
    aten.clone,
    aten.new_ones,
}


def trains_otherwise(model: nn.Module, graph: Graph) -> bool:
    """Whether some module's forward may run other ops on other shapes when it trains."""
    asking = {path: m for path, m in each_path(model) if _asks(m)}
    shapes = {c.path: graph.values[c.inputs[0]].shape for c in graph.modules if c.plain} if asking else {}
    called = {c.path for c in graph.modules}
    noise = {
        id(m) for p, m in asking.items() if (p in shapes or p not in called) and _is_noise(m, shapes.get(p))
    }
    return any(id(module) not in noise for module in asking.values())


def _asks(module: nn.Module) -> bool:
    return any(not _falsy(module, guards) for guards in _branches(type(module)))


def _falsy(module: nn.Module, guards: Sequence[str]) -> bool:
    return any(getattr(module, name, None) in (False, None, 0) for name in guards)


@functools.cache
def _branches(kind: type) -> tuple[tuple[str, ...], ...]:
    """Branches on `self.training` in a class's own forward and the methods it may reach by name, each with the
    attributes of self that switch it off.
    """
    if not _own(kind):
        return ()
    asking = [f for f in _reached(kind) if "training" in f.__code__.co_names]
    return tuple(guards for f in asking for guards in _read(f, None, _DEPTH))


def _reached(kind: type) -> list[Callable[..., Any]]:
    methods: dict[str, list[Callable[..., Any]]] = {}
    for base in kind.__mro__:
        if _own(base) and issubclass(base, nn.Module):
            for name, value in vars(base).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if inspect.isfunction(function):
                    methods.setdefault(name, []).append(inspect.unwrap(function))
    found: list[Callable[..., Any]] = []
    pending = ["forward", "__call__"]
    while pending:
        for function in methods.pop(pending.pop(), ()):
            found.append(function)
            pending.extend(name for code in _codes(function.__code__) for name in code.co_names)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _own(kind: type) -> bool:
    return not f"{kind.__module__}.".startswith("torch.nn.")


def _read(function: Callable[..., Any], name: str | None, depth: int) -> list[tuple[str, ...]]:
    """Branches of a function on `self.training` (name None) or on a parameter that holds it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return [()]
    flags = {id(node) for node in ast.walk(tree) if _is_flag(node, name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and depth:
            flags -= {
                id(given)
                for given, key in _given(node)
                if _harmless(function, node, given, key, flags, depth)
            }
        elif isinstance(node, ast.IfExp) and _only_numbers(node.body) and _only_numbers(node.orelse):
            flags -= {id(n) for n in ast.walk(node.test)}
    return [_guards(tree, flag) for flag in flags]


def _is_flag(node: ast.AST, name: str | None) -> bool:
    if name is not None:
        return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.Attribute) and node.attr == "training" and isinstance(node.ctx, ast.Load)


def _given(call: ast.Call) -> Iterator[tuple[ast.expr, int | str | None]]:
    yield from ((value, position) for position, value in enumerate(call.args))
    yield from ((keyword.value, keyword.arg) for keyword in call.keywords)


def _harmless(
    caller: Callable[..., Any],
    call: ast.Call,
    given: ast.expr,
    key: int | str | None,
    flags: set[int],
    depth: int,
) -> bool:
    """Whether the flag goes to a function that branches on it nowhere but inside torch."""
    if id(given) not in flags or key is None:
        return False
    target = _resolve(call.func, caller)
    if target is None:
        return False
    if f"{getattr(target, '__module__', None)}.".startswith(("torch.", "torch._C.")):
        return True
    target = inspect.unwrap(target)
    if not inspect.isfunction(target):
        return False
    names = list(inspect.signature(target).parameters)
    name = key if isinstance(key, str) else names[key] if key < len(names) else None
    return name in names and not _read(target, name, depth - 1)


def _resolve(node: ast.expr, caller: Callable[..., Any]) -> Any:
    """The function a dotted name stands for among the caller's globals."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    found = getattr(caller, "__globals__", {}).get(node.id)
    for part in reversed(parts):
        found = getattr(found, part, None)
    return found


def _only_numbers(node: ast.expr) -> bool:
    """A constant or something the module keeps: no call, no arithmetic."""
    if isinstance(node, ast.Constant):
        return True
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "self"


def _guards(tree: ast.AST, flag: int) -> tuple[str, ...]:
    """Attributes of self that stand in one `and` with the flag."""
    for node in ast.walk(tree):
        values = node.values if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else []
        if any(id(value) == flag for value in values):
            return tuple(v.attr for v in values if _of_self(v) and id(v) != flag)
    return ()


def _of_self(node: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_noise(module: nn.Module, shape: tuple[int, ...] | None) -> bool:
    """A module without tensors that, when it trains, only multiplies by random numbers; or one that is never called."""
    if any(True for _ in module.children()) or module.state_dict():
        return False
    if shape is None:
        return True
    before, module.training = module.training, True
    watch = _OnlyNoise()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
            result = module(torch.empty(shape, device="meta"))
    except Exception:
        return False
    finally:
        module.training = before
    return watch.only and isinstance(result, torch.Tensor) and result.shape == shape


class _OnlyNoise(TorchDispatchMode):
    """Whether every op is elementwise, or makes random numbers that broadcast."""

    only = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.only &= is_pointwise(func) or func.overloadpacket in _FACTORIES
        return func(*args, **(kwargs or {}))
