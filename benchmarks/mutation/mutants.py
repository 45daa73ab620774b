"""Mutants of a module: small faults in the bodies of its functions, each a changed syntax tree."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
REMOVABLE = frozenset(
    {
        "abs", "clamp", "cumsum", "detach", "double", "exp", "floor", "log", "log_softmax", "logsumexp", "neg", "reciprocal", "round",
        "rsqrt", "softmax", "sort", "sqrt", "square",
    }
)  # fmt: skip
"""Methods whose call is replaced by the tensor that they are called on."""
RENAMED = {
    "mean": "sum", "sum": "mean", "any": "all", "all": "any", "amax": "amin", "amin": "amax", "maximum": "minimum", "minimum": "maximum",
    "sin": "cos", "cos": "sin", "stddev": "variance", "variance": "stddev", "sqrt": "square", "logsumexp": "logcumsumexp",
    "rsample": "sample", "argmax": "argmin",
}  # fmt: skip
COMMUTATIVE = frozenset(
    {
        "enumerate", "getattr", "hasattr", "isinstance", "issubclass", "logaddexp", "max", "maximum", "min", "minimum", "range", "setattr",
        "zip",
    }
)  # fmt: skip
"""Functions of two arguments whose order has no effect, or whose swap cannot run."""
REPORTING = frozenset({"extra_repr", "bound_warnings", "_bounded", "_bounded_share", "describe_support"})
"""Functions that only word messages."""


@dataclass(frozen=True)
class Mutant:
    """A fault in a module.

    Arguments:
        module: Path of the module.
        number: Its number among the mutants of the module.
        line: The line of the fault.
        function: The qualified name of the function that contains it.
        before: The expression or statement that is replaced.
        after: The replacement.
    """

    module: str
    number: int
    line: int
    function: str
    before: str
    after: str


def mutants(module: str, source: str) -> list[Mutant]:
    """All mutants of a module, given its path and its text."""
    return [
        Mutant(module, number, line, function, _text(old), _text(new))
        for number, (line, function, _, old, new) in enumerate(_sites(ast.parse(source)))
    ]


def mutated(source: str, number: int) -> ast.Module:
    """The syntax tree of a module with one of its mutants."""
    tree = ast.parse(source)
    _, _, (parent, name, index), _, new = next(site for at, site in enumerate(_sites(tree)) if at == number)
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new
    return ast.fix_missing_locations(tree)


Place = tuple[ast.AST, str, int | None]
Site = tuple[int, str, Place, ast.AST, ast.AST]


def _sites(tree: ast.Module) -> Iterator[Site]:
    """The line, function, place, old node and new node of each mutant, in a fixed order."""
    for function, qualified in _functions(tree, ""):
        if function.name not in REPORTING:
            for index, statement in enumerate(function.body):
                yield from _within(statement, (function, "body", index), qualified)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """The outermost functions and methods with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child, prefix + child.name
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _within(node: ast.AST, place: Place, function: str) -> Iterator[Site]:
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments) or _is_text(node):
        return
    for new in _replacements(node):
        # A comprehension has no line of its own.
        yield getattr(node.target if isinstance(node, ast.comprehension) else node, "lineno", 0), function, place, node, new
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "ctx", "keywords"} and not isinstance(node, ast.Call):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                yield from _within(child, (node, name, index), function)


def _is_text(node: ast.AST) -> bool:
    """Whether a node is a docstring, or a call that only builds an error or a warning."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replacements(node: ast.AST) -> list[ast.AST]:
    for kind, change in _CHANGES.items():
        if isinstance(node, kind):
            return change(copy.deepcopy(node))
    return []


def _statement(node: ast.Expr | ast.AugAssign) -> list[ast.AST]:
    removed: list[ast.AST] = [ast.copy_location(ast.Pass(), node)]
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        return [*removed, ast.copy_location(ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value), node)]
    return removed if isinstance(node, ast.AugAssign | ast.Expr) and not isinstance(getattr(node, "value", None), ast.Yield) else []


def _binary(node: ast.BinOp) -> list[ast.AST]:
    if isinstance(node.op, ast.MatMult | ast.Mod):
        return []
    other = OPERATORS.get(type(node.op))
    swapped = [] if other is None else [ast.copy_location(ast.BinOp(node.left, other(), node.right), node)]
    return [*swapped, node.left]


def _comparison(node: ast.Compare) -> list[ast.AST]:
    changed = []
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            operators = [*node.ops[:index], other(), *node.ops[index + 1 :]]
            changed.append(ast.copy_location(ast.Compare(node.left, operators, node.comparators), node))
    return changed


def _constant(node: ast.Constant) -> list[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        return [ast.copy_location(ast.Constant(not value), node)]
    if isinstance(value, int):
        return [ast.copy_location(ast.Constant(value + 1), node)]
    return [ast.copy_location(ast.Constant(2 * value or 1.0), node)] if isinstance(value, float) else []


def _call(node: ast.Call) -> list[ast.AST]:
    changed: list[ast.AST] = []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
    if isinstance(node.func, ast.Attribute) and name in REMOVABLE and not _is_module(node.func.value):
        changed.append(node.func.value)
    if name == "where" and len(node.args) == 3:
        changed.append(_with_arguments(node, [node.args[0], node.args[2], node.args[1]]))
    if len(node.args) == 2 and not node.keywords and name not in COMMUTATIVE and all(map(_is_value, node.args)):
        changed.append(_with_arguments(node, node.args[::-1]))
    return changed


def _with_arguments(node: ast.Call, arguments: list[ast.expr]) -> ast.AST:
    return ast.copy_location(ast.Call(node.func, arguments, node.keywords), node)


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"torch", "math", "F", "np", "randomness"}


def _is_value(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.BinOp)


def _attribute(node: ast.Attribute) -> list[ast.AST]:
    other = RENAMED.get(node.attr)
    return [] if other is None else [ast.copy_location(ast.Attribute(node.value, other, node.ctx), node)]


def _negation(node: ast.UnaryOp) -> list[ast.AST]:
    return [node.operand]


def _condition(node: ast.If | ast.IfExp) -> list[ast.AST]:
    node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
    return [node]


def _connective(node: ast.BoolOp) -> list[ast.AST]:
    node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    return [node]


def _filter(node: ast.comprehension) -> list[ast.AST]:
    if not node.ifs:
        return []
    node.ifs = []
    return [node]


_CHANGES = {
    ast.AugAssign: _statement, ast.Expr: _statement, ast.BinOp: _binary, ast.Compare: _comparison, ast.Constant: _constant,
    ast.Call: _call, ast.Attribute: _attribute, ast.UnaryOp: _negation, ast.If: _condition, ast.IfExp: _condition,
    ast.BoolOp: _connective, ast.comprehension: _filter,
}  # fmt: skip


def _text(node: ast.AST) -> str:
    """The first line of a node's source."""
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}:"
    if isinstance(node, ast.comprehension):
        return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}" + "".join(f" if {ast.unparse(test)}" for test in node.ifs)
    return ast.unparse(node)
