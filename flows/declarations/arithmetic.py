"""Arithmetic in declarations: `k * log2(codebook_size) / image_side ** 2`, over named numbers and nothing else."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

_OPERATIONS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "log2": math.log2,
    "log": math.log,
    "sqrt": math.sqrt,
    "ceil": math.ceil,
    "min": min,
    "max": max,
}
_LARGEST_POWER = 64


def parse(text: str) -> ast.expr:
    """Read an expression.

    Raises:
        ValueError: It is no expression, or holds something else than numbers, names, + - * / ** and the functions
            log2, log, sqrt, ceil, min and max.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg} at character {error.offset}.") from None
    _check(tree, text)
    return tree


def names(text: str) -> tuple[str, ...]:
    """Return the names that an expression needs, in the order in which they stand."""
    tree = parse(text)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions]
    return tuple(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.col_offset)))


def evaluate(text: str, values: Mapping[str, float]) -> float:
    """Return the value of an expression.

    Args:
        text: The expression.
        values: Number of each name in it.

    Raises:
        ValueError: A name has no value, or the value is not defined (a division by zero, a negative logarithm).
    """
    tree = parse(text)
    try:
        value = float(_value(tree, values))
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{text} has no value: {error}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite.")
    return value


def _check(node: ast.AST, text: str) -> None:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            _check(left, text)
            _check(right, text)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATIONS:
            _check(operand, text)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS and arguments:
            for argument in arguments:
                _check(argument, text)
        case ast.Name() if node.id not in _FUNCTIONS:
            pass
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            pass
        case _:
            allowed = f"numbers, names, + - * / ** and {', '.join(_FUNCTIONS)}"
            raise ValueError(f"{text!r} holds {ast.unparse(node)!r}; expected {allowed}.")


def _value(node: ast.AST, values: Mapping[str, float]) -> float:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _value(left, values), _value(right, values)
            if isinstance(op, ast.Pow) and abs(other) > _LARGEST_POWER:
                raise ValueError(f"the exponent {other:g} is above {_LARGEST_POWER}")
            return _OPERATIONS[type(op)](one, other)
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATIONS[type(op)](_value(operand, values))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_value(argument, values) for argument in arguments))
        case ast.Name(id=name):
            if name not in values:
                raise ValueError(f"{name!r} has no number")
            return values[name]
        case ast.Constant(value=value):
            return float(value)
    raise AssertionError("parse lets nothing else pass")
