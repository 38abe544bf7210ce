"""Small faults for the mutation check: each is one replaced node of a module's syntax tree."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SWAPPED_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SWAPPED_NAMES = {
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "minimum": "maximum",
    "maximum": "minimum",
    "clamp_min": "clamp_max",
    "add_": "sub_",
    "sub_": "add_",
    "mul_": "div_",
    "div_": "mul_",
}
DELETABLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return, ast.If, ast.For, ast.Raise)


@dataclass(frozen=True)
class Mutant:
    """One fault: ``owner.field`` (or its element ``index``) becomes ``replacement``.

    Args:
        key: ``function: before -> after``, unique in the module and independent of line numbers.
        line: Where it is.
        owner: Node whose field is replaced.
        field: Name of the field.
        index: Position in the field's list; None where the field is no list.
        replacement: What takes the place.
    """

    key: str
    line: int
    owner: ast.AST
    field: str
    index: int | None
    replacement: Any

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The tree holds the fault inside of the block."""
        original = self._get()
        self._set(self.replacement)
        try:
            yield
        finally:
            self._set(original)

    def _get(self) -> Any:
        value = getattr(self.owner, self.field)
        return value if self.index is None else value[self.index]

    def _set(self, value: Any) -> None:
        if self.index is None:
            setattr(self.owner, self.field, value)
        else:
            getattr(self.owner, self.field)[self.index] = value


@dataclass(frozen=True)
class _Site:
    """A possible fault, before it has a key."""

    shown: ast.AST
    owner: ast.AST
    field: str
    index: int | None
    replacement: Any


def mutants_of(tree: ast.Module) -> list[Mutant]:
    """All faults of a module, in the order of its lines."""
    found, seen = [], Counter[str]()
    for scope, site in _walk(tree, "", _imported_names(tree)):
        shown = _shown(site)
        key = f"{scope or 'module'}: {shown}"
        seen[key] += 1
        if seen[key] > 1:
            key += f" (#{seen[key]})"
        line = getattr(site.shown, "lineno", 0)
        found.append(Mutant(key, line, site.owner, site.field, site.index, site.replacement))
    return sorted(found, key=lambda mutant: mutant.line)


def _shown(site: _Site) -> str:
    before = ast.unparse(site.shown).split("\n")[0]
    if isinstance(site.replacement, ast.Pass):
        return f"{before} -> (deleted)"
    draft = Mutant("", 0, site.owner, site.field, site.index, site.replacement)
    if site.shown is draft._get():
        return f"{before} -> {ast.unparse(site.replacement)}"
    with draft.applied():
        return f"{before} -> {ast.unparse(site.shown).split(chr(10))[0]}"


def _imported_names(tree: ast.Module) -> set[str]:
    """Names bound by imports: an attribute of these is a function and not a method of a value."""
    return {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _walk(node: ast.AST, scope: str, modules: set[str]) -> Iterator[tuple[str, _Site]]:
    """The faults at every node below, with the name of the function that holds it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    yield from ((scope, site) for site in _sites(node, modules))
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_passive(child):
                continue
            at = index if isinstance(value, list) else None
            yield from ((scope, site) for site in _replacements(node, field, at, child, modules))
            if isinstance(child, DELETABLE) and _is_worth_deleting(node, child, at):
                yield scope, _Site(child, node, field, at, ast.copy_location(ast.Pass(), child))
            yield from _walk(child, scope, modules)


def _is_passive(node: ast.AST) -> bool:
    """Docstrings, imports and assertions for the type checker say nothing about behaviour."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, ast.Import | ast.ImportFrom | ast.Assert)


def _is_worth_deleting(owner: ast.AST, statement: ast.AST, index: int | None) -> bool:
    """Whether a deletion could go unnoticed: that of a name or of the result could not."""
    if isinstance(statement, ast.Assign):
        return not all(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    if isinstance(statement, ast.Return):
        is_last = isinstance(owner, ast.FunctionDef) and index == len(owner.body) - 1
        return not is_last and not (isinstance(owner, ast.If) and len(owner.body) == 1)  # then the deleted if covers it
    return True


def _sites(node: ast.AST, modules: set[str]) -> Iterator[_Site]:
    """Faults inside a node: another operator, another name of a function."""
    match node:
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) | ast.BoolOp(op=operator):
            if swapped := SWAPPED_OPERATORS.get(type(operator)):
                yield _Site(node, node, "op", None, swapped())
        case ast.Compare(ops=[operator]) if swapped := SWAPPED_OPERATORS.get(type(operator)):
            yield _Site(node, node, "ops", 0, swapped())
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _Site(test, node, "test", None, ast.copy_location(ast.UnaryOp(ast.Not(), test), test))
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in SWAPPED_NAMES:
            yield _Site(node, function, "attr", None, SWAPPED_NAMES[name])
        case ast.Call(func=ast.Name(id=name) as function) if name in SWAPPED_NAMES:
            yield _Site(node, function, "id", None, SWAPPED_NAMES[name])
        case ast.Call(keywords=[ast.keyword(arg="min" | "max" as name) as keyword]):
            yield _Site(node, keyword, "arg", None, SWAPPED_NAMES[name])


def _replacements(owner: ast.AST, field: str, index: int | None, child: ast.AST, modules: set[str]) -> Iterator[_Site]:
    """Faults that put something else in the place of a node: another constant, the object without its method."""
    match child:
        case ast.Constant(value=bool(value)):
            yield _Site(child, owner, field, index, ast.copy_location(ast.Constant(not value), child))
        case ast.Constant(value=int(value) | float(value)):
            other = ast.copy_location(ast.Constant(type(value)(0 if value == 1 else value + 1)), child)
            yield _Site(owner if isinstance(owner, ast.expr) else child, owner, field, index, other)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand) if not _is_last_dimension(child):
            yield _Site(child, owner, field, index, operand)
        case ast.Call(func=ast.Attribute(value=value)) if not _is_module(value, modules):
            yield _Site(child, owner, field, index, value)


def _is_last_dimension(node: ast.UnaryOp) -> bool:
    """Whether it is an index from the end, such as -1, whose positive twin often means the same."""
    return isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)


def _is_module(node: ast.AST, modules: set[str]) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    named = isinstance(node, ast.Name) and (node.id in modules or node.id in ("self", "super", "cls"))
    return named or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super")
