"""Two mutations that cosmic-ray does not have: most lines here are calls, which its own operators leave as they are."""

from __future__ import annotations

from collections.abc import Iterator

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Keyword
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]


class DropKeywordArgument(Operator):
    """`f(x, scale=2)` becomes `f(x)`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        return ((argument.start_pos, argument.end_pos) for argument in self._arguments(node))

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        place = node.children.index(self._arguments(node)[index])
        comma = node.children[place + 1] == "," if place + 1 < len(node.children) else False
        del node.children[place : place + 1 + comma]
        return node

    @staticmethod
    def _arguments(node: NodeOrLeaf) -> list[NodeOrLeaf]:
        if node.type not in ("arglist", "trailer"):  # several arguments, or a single one in its parentheses
            return []
        return [part for part in node.children if part.type == "argument" and part.children[1] == "="]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(x, y=1, z=2)", "f(x, z=2)"), Example("f(y=1)", "f()"))


class DropStatement(Operator):
    """A call whose result nobody takes, or an assignment as `x += 1`, becomes `pass`."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if node.type == "simple_stmt":
            first = node.children[0]
            changes = first.type == "expr_stmt" and first.children[1].type == "operator" and first.children[1] != "="
            if changes or first.type == "atom_expr":
                yield first.start_pos, first.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        first = node.children[0]
        node.children[0] = Keyword("pass", first.start_pos, first.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(x)\n", "pass\n"), Example("x += 1\n", "pass\n"))


class Provider(dict[str, type[Operator]]):
    """As cosmic-ray asks for operators."""

    def __init__(self) -> None:
        super().__init__({operator.__name__: operator for operator in (DropKeywordArgument, DropStatement)})
