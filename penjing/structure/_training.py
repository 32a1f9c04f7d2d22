"""Does training run other code than evaluation? Read from the source of the network's own methods.

Handing `self.training` to torch's functions (dropout), choosing between numbers by it, or counting batches changes
no structure; a branch on it may, and then the training forward is followed as well. What cannot be read counts as a
branch.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.core._graph import Graph
from penjing.structure._network._walk import each_path
from penjing.structure._rules import is_pointwise

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


@dataclass(frozen=True, slots=True)
class Branch:
    """A use of the flag that may change what runs: not where one of the `guards`, attributes of self, is off.

    `picked` are the attributes of self that the flag chooses among, where it does no more than that.
    """

    guards: tuple[str, ...] = ()
    picked: tuple[str, ...] = ()

    def matters(self, module: nn.Module, path: str, reached: Set[str]) -> bool:
        if self.picked:
            return any(_is_elsewhere(_under(module, n), f"{path}.{n}", reached) for n in self.picked)
        return not any(getattr(module, name, None) in (False, None, 0) for name in self.guards)


def _under(item: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        item = getattr(item, name, None)
    return item


def _is_elsewhere(item: Any, name: str, reached: Set[str]) -> bool:
    """Whether an attribute holds more than a number, and is not what evaluation reads as well."""
    return isinstance(item, (torch.Tensor, nn.Module)) and name.removeprefix(".") not in reached


def trains_otherwise(model: nn.Module, graph: Graph) -> bool:
    """Whether some module's forward may run other ops on other shapes when it trains."""
    read = {value for call in graph.calls for value in call.inputs}
    reached = {name for name, value in graph.states.items() if value in read}
    asking = {
        path: m
        for path, m in each_path(model)
        if any(branch.matters(m, path, reached) for branch in _branches(type(m)))
    }
    shapes = {c.path: graph.values[c.inputs[0]].shape for c in graph.modules if c.plain} if asking else {}
    called = {c.path for c in graph.modules}
    noise = {
        id(m) for p, m in asking.items() if (p in shapes or p not in called) and _is_noise(m, shapes.get(p))
    }
    return any(id(module) not in noise for module in asking.values())


@functools.cache
def _branches(kind: type) -> tuple[Branch, ...]:
    """Branches on `self.training` in a class's own forward and the methods it may reach by name."""
    if not _own(kind):
        return ()
    asking = [f for f in _reached(kind) if "training" in f.__code__.co_names]
    return tuple(branch for f in asking for branch in _read(f, None, _DEPTH))


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


def _read(function: Callable[..., Any], name: str | None, depth: int) -> list[Branch]:
    """Branches of a function on `self.training` (name None) or on a parameter that holds it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return [Branch()]
    flags = {id(node) for node in ast.walk(tree) if _is_flag(node, name)}
    flags -= {id(inner) for test in _asking_for_a_copy(tree) for inner in ast.walk(test)}
    picked = _chosen_numbers(tree, flags)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and depth:
            flags -= {
                id(given)
                for given, key in _given(node)
                if _harmless(function, node, given, key, flags, depth)
            }
        elif isinstance(node, ast.IfExp) and _only_numbers(node.body) and _only_numbers(node.orelse):
            tested = {id(n) for n in ast.walk(node.test)} & flags
            flags -= tested
            picked += _kept_by_self([node.body, node.orelse]) if tested else []
    return [Branch(_guards(tree, flag)) for flag in flags] + [Branch(picked=(one,)) for one in picked]


def _asking_for_a_copy(tree: ast.AST) -> Iterator[ast.expr]:
    """Tests that choose between computing a value anew and giving the one that was kept: `if self.training: return
    self.table[self.places]`, else the same out of `self.cache[key]`, where it is put first if it is not there.
    """
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        for position, statement in enumerate(body if isinstance(body, list) else ()):
            if isinstance(statement, ast.If) and len(statement.body) == 1:
                rest = statement.orelse or body[position + 1 :]
                if isinstance(statement.body[0], ast.Return) and _gives_kept(statement.body[0].value, rest):
                    yield statement.test


def _gives_kept(value: ast.expr | None, statements: Sequence[ast.stmt]) -> bool:
    """Whether statements do no more than to keep this value somewhere in self, and return it from there."""
    *before, last = statements or [ast.Pass()]
    if (
        value is None
        or not isinstance(last, ast.Return)
        or not isinstance(last.value, ast.Subscript | ast.Attribute)
    ):
        return False
    place, keeps = ast.unparse(last.value), False
    waiting = list(before)
    for statement in waiting:
        if isinstance(statement, ast.If) and not statement.orelse:
            waiting.extend(statement.body)
        elif not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return False
        elif ast.unparse(statement.targets[0]) == place:
            keeps = ast.unparse(statement.value) == ast.unparse(value)
            if not keeps:
                return False
        elif not _is_text(statement.value):
            return False
    return keeps and place.startswith("self.")


def _is_text(node: ast.expr) -> bool:
    """`str(device)`"""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str"


def _chosen_numbers(tree: ast.AST, flags: set[int]) -> list[str]:
    """Takes out of `flags` those of statements that only set numbers by them, and puts in what reads these numbers.
    Gives the attributes of self that are chosen among.
    """
    picked: list[str] = []
    known: set[str] = set()
    waiting = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    for node in waiting:  # outer ones come first, and give the inner ones nothing new
        tested = {id(n) for n in ast.walk(node.test)} & flags
        statements = [*node.body, *node.orelse]
        if not tested or not all(map(_sets_numbers, statements)):
            continue
        flags -= tested
        inner = [n for s in statements for n in ast.walk(s)]
        picked += _kept_by_self([n.value for n in inner if isinstance(n, ast.Assign)])
        names = {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - known
        known |= names
        flags |= {
            id(n)
            for n in ast.walk(tree)
            if isinstance(n, ast.Name) and n.id in names and isinstance(n.ctx, ast.Load)
        }
    return picked


def _sets_numbers(statement: ast.stmt) -> bool:
    """Whether a statement gives local variables numbers, or counts in a buffer (`self.batches.add_(1)`)."""
    if isinstance(statement, ast.If):
        return all(map(_sets_numbers, [*statement.body, *statement.orelse]))
    if isinstance(statement, ast.Assign):
        return all(isinstance(t, ast.Name) for t in statement.targets) and _is_number(statement.value)
    if isinstance(statement, ast.Expr):
        return _is_constant(statement.value) or _counts(statement.value)
    return isinstance(statement, ast.Pass)


def _counts(node: ast.expr) -> bool:
    """`self.batches.add_(1)`"""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_"
        and _of_self(node.func.value)
        and all(map(_is_constant, node.args))
        and not node.keywords
    )


def _is_number(node: ast.expr) -> bool:
    """Constants, what the module keeps, and `float`, comparisons and arithmetic of these."""
    if isinstance(node, ast.BinOp):
        return _is_number(node.left) and _is_number(node.right)
    if isinstance(node, ast.Compare):
        return all(map(_is_number, [node.left, *node.comparators]))
    if isinstance(node, ast.BoolOp):
        return all(map(_is_number, node.values))
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id in ("float", "int", "bool")
        return plain and not node.keywords and all(map(_is_number, node.args))
    return _only_numbers(node)


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _kept_by_self(nodes: Sequence[ast.expr]) -> list[str]:
    """Attributes of self that reach what is chosen; those inside a comparison or `float` become numbers."""
    found: list[str] = []
    waiting = list[ast.AST](nodes)
    while waiting:
        node = waiting.pop()
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if dotted.startswith("self."):
            found.append(dotted.removeprefix("self."))
        elif not isinstance(node, (ast.Compare, ast.Call)):
            waiting.extend(ast.iter_child_nodes(node))
    return found


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
    """Attributes of self that stand in one `and` with the flag, as they are or compared with zero (`self.p > 0`)."""
    for node in ast.walk(tree):
        values = node.values if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else []
        if any(id(value) == flag for value in values):
            plain = [v.left if _is_above_zero(v) else v for v in values]
            return tuple(v.attr for v in plain if _of_self(v) and id(v) != flag)
    return ()


def _is_above_zero(node: ast.expr) -> TypeGuard[ast.Compare]:
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Gt):
        return False
    bound = node.comparators[0]
    return len(node.ops) == 1 and isinstance(bound, ast.Constant) and bound.value == 0


def _of_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
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
