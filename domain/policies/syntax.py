"""Expressions: a subset of CEL's syntax, read into a tree that the ledger keeps.

    or      = and { "||" and }
    and     = cmp { "&&" cmp }
    cmp     = sum [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") sum ]
    sum     = product { ("+" | "-") product }
    product = unary { ("*" | "/" | "%") unary }
    unary   = [ "!" | "-" ] postfix
    postfix = primary { "." name [ "(" or ")" ] | "[" string "]" }
    primary = integer | string | "true" | "false" | "[" or { "," or } "]" | "(" or ")"
            | name [ "(" or { "," or } ")" ]

A conditional `c ? a : b` is the widest form. In the ledger a tree is JSON: a literal is itself, all
else is an array of the operator and its operands.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

LENGTH_MAX: Final = 2000
NODES_MAX: Final = 256
DEPTH_MAX: Final = 32
INT_MAX: Final = 1 << 52

Literal = int | bool | str

METHODS: Final = ("startsWith", "endsWith", "contains")
FUNCTIONS: Final = {"has": 1, "size": 1, "int": 2, **dict.fromkeys(METHODS, 2)}
"""By name: how many operands."""
COMPARISONS: Final = ("==", "!=", "<=", ">=", "<", ">", "in")

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<int>[0-9]+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<string>"(?:[^"\\\n]|\\["'\\])*"|'(?:[^'\\\n]|\\["'\\])*')
    | (?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!()\[\],.?:])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)


class Fault(Exception):
    """An expression is not one that may be used; `at` is the offset of what is wrong."""

    def __init__(self, at: int, rule: str) -> None:
        super().__init__(rule)
        self.at = at
        self.rule = rule

    def in_source(self, source: str) -> str:
        """The rule with line and column, both from 1."""
        before = source[: self.at]
        line = before.count("\n") + 1
        column = self.at - (before.rfind("\n") + 1) + 1
        return f"line {line}, column {column}: {self.rule}"


class Node(NamedTuple):
    """A literal (`value`), an attribute (`value` is its name), a list, or an operator."""

    op: str
    args: tuple[Node, ...] = ()
    value: Literal | None = None
    at: int = 0


def literal(value: Literal, at: int = 0) -> Node:
    return Node("literal", (), value, at)


def attribute(name: str, key: str | None = None, at: int = 0) -> Node:
    return Node("attr", (literal(key),) if key is not None else (), name, at)


def both(one: Node, two: Node) -> Node:
    return Node("&&", (one, two), None, two.at)


def parse(source: str) -> Node:
    """The tree of an expression. Raises Fault."""
    if len(source) > LENGTH_MAX:
        raise Fault(LENGTH_MAX, f"an expression has at most {LENGTH_MAX} characters")
    return _Parser(source).whole()


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def _tokens(source: str) -> list[_Token]:
    found, at = [], 0
    while True:
        match = _TOKEN.match(source, at)
        if match is None:
            at += len(source[at:]) - len(source[at:].lstrip())
            raise Fault(at, f"{source[at]!r} starts no token")
        kind = match.lastgroup
        assert kind is not None, "each alternative has a name"
        found.append(_Token(kind, match[kind], match.start(kind)))
        if kind == "end":
            return found
        at = match.end()


class _Parser:
    def __init__(self, source: str) -> None:
        self._tokens = _tokens(source)
        self._at = 0
        self._nodes = 0
        self._depth = 0

    def whole(self) -> Node:
        found = self._conditional()
        token = self._tokens[self._at]
        if token.kind != "end":
            raise Fault(token.at, f"expected the end or an operator, found {token.text!r}")
        return found

    def _node(self, op: str, args: tuple[Node, ...], at: int, value: Literal | None = None) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise Fault(at, f"an expression has at most {NODES_MAX} parts")
        return Node(op, args, value, at)

    def _next(self, *texts: str) -> _Token | None:
        """The next token if it is one of these signs or words."""
        token = self._tokens[self._at]
        if token.kind in ("sign", "name") and token.text in texts:
            self._at += 1
            return token
        return None

    def _need(self, text: str) -> _Token:
        token = self._next(text)
        if token is None:
            found = self._tokens[self._at]
            what = repr(found.text) if found.text else "the end"
            raise Fault(found.at, f"expected {text!r}, found {what}")
        return token

    def _conditional(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise Fault(self._tokens[self._at].at, f"at most {DEPTH_MAX} levels of parentheses")
        found = self._left("||")
        if (token := self._next("?")) is not None:
            yes = self._conditional()
            self._need(":")
            found = self._node("?:", (found, yes, self._conditional()), token.at)
        self._depth -= 1
        return found

    def _left(self, op: str) -> Node:
        """`||` and `&&`: chains that bind to the left."""
        below = self._comparison if op == "&&" else lambda: self._left("&&")
        found = below()
        while (token := self._next(op)) is not None:
            found = self._node(op, (found, below()), token.at)
        return found

    def _comparison(self) -> Node:
        found = self._chain(("+", "-"))
        token = self._next(*COMPARISONS)
        if token is None:
            return found
        found = self._node(token.text, (found, self._chain(("+", "-"))), token.at)
        again = self._tokens[self._at]
        if again.kind == "sign" and again.text in COMPARISONS:
            raise Fault(again.at, "comparisons do not chain: join two with &&")
        return found

    def _chain(self, ops: tuple[str, ...]) -> Node:
        wide = ops[0] == "+"
        found = self._chain(("*", "/", "%")) if wide else self._unary()
        while (token := self._next(*ops)) is not None:
            right = self._chain(("*", "/", "%")) if wide else self._unary()
            found = self._node(token.text, (found, right), token.at)
        return found

    def _unary(self) -> Node:
        token = self._next("!", "-")
        if token is None:
            return self._postfix()
        operand = self._unary_operand(token)
        if token.text == "-" and operand.op == "literal" and type(operand.value) is int:
            return operand._replace(value=-operand.value, at=token.at)
        return self._node("!" if token.text == "!" else "neg", (operand,), token.at)

    def _unary_operand(self, token: _Token) -> Node:
        again = self._tokens[self._at]
        if again.kind == "sign" and again.text == token.text:
            raise Fault(again.at, f"{token.text!r} is written once")
        return self._unary()

    def _postfix(self) -> Node:
        found = self._primary()
        while True:
            if (token := self._next(".")) is not None:
                name = self._name()
                if self._next("(") is None:
                    found = self._member(found, name)
                    continue
                if name.text not in METHODS:
                    raise Fault(name.at, f"no function is named {name.text!r}")
                argument = self._conditional()
                self._need(")")
                found = self._node(name.text, (found, argument), name.at)
            elif (token := self._next("[")) is not None:
                key = self._conditional()
                self._need("]")
                if found.op != "attr" or key.op != "literal" or not isinstance(key.value, str):
                    raise Fault(token.at, "only an attribute has entries, by a string in quotes")
                found = self._node("attr", (key,), found.at, found.value)
            else:
                return found

    def _member(self, of: Node, name: _Token) -> Node:
        if of.op != "attr" or of.args:
            raise Fault(name.at, "only an attribute's name has a dot")
        return of._replace(value=f"{of.value}.{name.text}")

    def _name(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind != "name":
            raise Fault(token.at, "expected a name after the dot")
        self._at += 1
        return token

    def _primary(self) -> Node:
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "int":
            if len(token.text) > 16 or int(token.text) > INT_MAX:
                raise Fault(token.at, f"an integer is at most {INT_MAX}")
            return self._node("literal", (), token.at, int(token.text))
        if token.kind == "string":
            text = re.sub(r"\\(.)", r"\1", token.text[1:-1])
            return self._node("literal", (), token.at, text)
        if token.text == "(":
            found = self._conditional()
            self._need(")")
            return found
        if token.text == "[":
            return self._node("list", self._items("]"), token.at)
        if token.kind != "name":
            what = repr(token.text) if token.text else "the end"
            raise Fault(token.at, f"expected a value, found {what}")
        if token.text in ("true", "false"):
            return self._node("literal", (), token.at, token.text == "true")
        if self._next("(") is None:
            return self._node("attr", (), token.at, token.text)
        return self._call(token)

    def _call(self, name: _Token) -> Node:
        if name.text not in FUNCTIONS or name.text in METHODS:
            known = ", ".join(n for n in FUNCTIONS if n not in METHODS)
            raise Fault(name.at, f"no function is named {name.text!r}; there are {known}")
        args = self._items(")")
        if len(args) != FUNCTIONS[name.text]:
            raise Fault(name.at, f"{name.text} takes {FUNCTIONS[name.text]}, not {len(args)}")
        return self._node(name.text, args, name.at)

    def _items(self, end: str) -> tuple[Node, ...]:
        if self._next(end) is not None:
            return ()
        items = [self._conditional()]
        while self._next(",") is not None:
            items.append(self._conditional())
        self._need(end)
        return tuple(items)


# --- as JSON --------------------------------------------------------------------------------------


def to_json(node: Node) -> Any:
    """The tree as plain JSON values."""
    if node.op == "literal":
        return node.value
    if node.op == "attr":
        return ["attr", node.value, *(to_json(a) for a in node.args)]
    return [node.op, *(to_json(a) for a in node.args)]


def from_json(value: Any) -> Node:
    if not isinstance(value, list | tuple):
        return literal(value)
    op, *rest = value
    if op == "attr":
        return attribute(*rest)
    return Node(op, tuple(from_json(v) for v in rest))


def attributes(node: Node) -> list[Node]:
    """All attributes that the tree reads, in its order."""
    if node.op == "attr":
        return [node]
    return [found for arg in node.args for found in attributes(arg)]


def substitute(node: Node, values: dict[str, int]) -> Node:
    """The tree with these attributes (those with an entry as `name[entry]`) replaced by values."""
    if node.op == "attr":
        name = str(node.value) + (f"[{node.args[0].value}]" if node.args else "")
        return literal(values[name], node.at) if name in values else node
    return node._replace(args=tuple(substitute(arg, values) for arg in node.args))


def conjuncts(node: Node) -> list[Node]:
    """The parts that all have to hold."""
    if node.op != "&&":
        return [node]
    return conjuncts(node.args[0]) + conjuncts(node.args[1])
