"""Finds the places of a C++ file that tests/mutate changes, and writes the file that has all the changes in it.

A mutant is chosen at run time: `a < b` becomes `(::shard_mutant(7) ? (a <= b) : a < b)`. Since one mutant is active at
a time, the changed branch holds the original text, and nested mutants do not multiply.
"""

import re
from dataclasses import dataclass

from clang.cindex import CursorKind as K
from clang.cindex import Index

SWAPS = {"<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"], "==": ["!="], "!=": ["=="],
         "&&": ["||"], "||": ["&&"], "+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"], "&": ["|"], "|": ["&"],
         "+=": ["-="], "-=": ["+="], "|=": ["&="], "&=": ["|="]}
FUNCTIONS = (K.FUNCTION_DECL, K.CXX_METHOD, K.CONSTRUCTOR, K.DESTRUCTOR, K.CONVERSION_FUNCTION, K.FUNCTION_TEMPLATE)
# What must be constant, is no expression, or is a check that only debug builds have.
SKIPPED = (K.STATIC_ASSERT, K.ENUM_DECL, K.TEMPLATE_NON_TYPE_PARAMETER, K.TEMPLATE_TYPE_PARAMETER,
           K.TEMPLATE_TEMPLATE_PARAMETER, K.TYPE_ALIAS_DECL, K.TYPEDEF_DECL, K.TYPE_ALIAS_TEMPLATE_DECL, K.USING_DECLARATION,
           K.CONCEPT_DECL if hasattr(K, "CONCEPT_DECL") else K.STATIC_ASSERT)
CHECKS = re.compile(r"(::)?((shard::)?detail::)?(expects|misuse|assert|check_\w+)\s*\(")
NO_EFFECT = re.compile(r"(\(void\)|static_cast<void>)\s*\(?\w+\)?$")


@dataclass
class Mutant:
    file: str
    function: str
    line: int
    start: int
    end: int
    original: str
    mutated: str
    form: str  # choice: the text is replaced; negate: the condition is; delete: the statement is left out
    rank: int  # of those that cover the same text, who is outside
    id: int = 0
    nth: int = 0  # of those with the same key

    def place(self):
        return f"{self.file}:{self.line}"

    def change(self):
        return f"{one_line(self.original)} -> {one_line(self.mutated) or '(nothing)'}"

    def key(self):
        """What does not change when lines are added above."""
        return (self.file, self.function, one_line(self.original), one_line(self.mutated))

    def name(self):
        return " | ".join((*self.key(), str(self.nth)))


def one_line(text):
    return " ".join(re.sub(r"//[^\n]*", "", text).split())


class Finder:
    def __init__(self, root, file, arguments):
        self.file = file
        self.text = (root / file).read_bytes()
        self.found = {}
        unit = Index.create().parse(str(root / file), args=arguments)
        errors = [d for d in unit.diagnostics if d.severity >= 3]
        if errors:
            raise SystemExit(f"{file}: {errors[0]}")
        for node in unit.cursor.get_children():
            if node.location.file and node.location.file.name == str(root / file):
                self.visit(node, None, "")

    def source(self, start, end):
        return self.text[start:end].decode()

    def of(self, node):
        return self.source(node.extent.start.offset, node.extent.end.offset)

    def add(self, node, function, mutated, form="choice", rank=1):
        start, end = node.extent.start.offset, node.extent.end.offset
        original = self.source(start, end)
        if "\n#" not in original:
            self.found.setdefault((start, end, form, mutated), Mutant(
                self.file, function, node.extent.start.line, start, end, original, mutated, form, rank))

    def negate(self, node, function):
        self.add(node, function, f"!({self.of(node)})", "negate", 2)

    def visit(self, node, parent, function):
        kind = node.kind
        if kind in SKIPPED or kind.is_attribute():
            return
        text = self.of(node)
        kids = sorted(node.get_children(), key=lambda kid: kid.extent.start.offset)
        if kind in FUNCTIONS:
            owner = node.semantic_parent.spelling if node.semantic_parent else ""
            function = f"{owner}::{node.spelling}" if owner else node.spelling
            kids = [kid for kid in kids if kid.kind == K.PARM_DECL or not kid.kind.is_reference()]
            if "consteval" in text.split("{")[0]:
                return
        elif kind in (K.VAR_DECL, K.FIELD_DECL, K.PARM_DECL):
            if "constexpr" in re.split(r"[={]", text)[0] or (kind == K.FIELD_DECL and node.is_bitfield()):
                return
            kids = [kid for kid in kids if kid.extent.start.offset >= node.location.offset]
        elif CHECKS.match(text):
            return
        self.statement(node, kind, text, parent, function)
        self.condition(node, kind, text, kids, function)
        if kind.is_expression():
            self.expression(node, kind, text, kids, parent, function)
        for kid in kids:
            if kind == K.CASE_STMT and kid is kids[0]:
                continue  # the label
            if kind == K.IF_STMT and text.startswith("if constexpr") and kid is kids[0]:
                continue
            self.visit(kid, node, function)

    def statement(self, node, kind, text, parent, function):
        if parent is None or parent.kind not in (K.COMPOUND_STMT, K.CASE_STMT, K.DEFAULT_STMT):
            return
        leaves = kind in (K.BREAK_STMT, K.CONTINUE_STMT) or (kind == K.RETURN_STMT and text == "return")
        if leaves or (kind.is_expression() and re.search(r"[(=]|\+\+|--|^throw|^delete", text)
                      and not NO_EFFECT.match(text)):
            self.add(node, function, "", "delete", 3)

    def condition(self, node, kind, text, kids, function):
        if kind in (K.IF_STMT, K.WHILE_STMT):
            for kid in kids:
                after = self.text[kid.extent.end.offset:].lstrip()
                if after.startswith(b")") and kid.extent.end.offset < node.extent.end.offset and not text.startswith("if constexpr"):
                    if kid.kind.is_expression():
                        self.negate(kid, function)
                    break  # a variable that is declared there comes first
        elif kind == K.FOR_STMT:
            for kid in kids:
                before = self.text[:kid.extent.start.offset].rstrip()
                after = self.text[kid.extent.end.offset:].lstrip()
                if kid.kind.is_expression() and before.endswith(b";") and after.startswith(b";"):
                    self.negate(kid, function)
        elif kind == K.DO_STMT:
            self.negate(kids[-1], function)
        elif kind == K.CONDITIONAL_OPERATOR:
            self.negate(kids[0], function)
        elif kind == K.RETURN_STMT and kids and kids[0].type.spelling == "bool":
            self.negate(kids[0], function)

    def expression(self, node, kind, text, kids, parent, function):
        if kind == K.INTEGER_LITERAL and (digits := re.fullmatch(r"(\d[\d']*)([uUlLzZ]*)", text)):
            if parent.kind not in (K.DECL_REF_EXPR, K.MEMBER_REF_EXPR, K.OVERLOADED_DECL_REF):
                value = int(digits[1].replace("'", ""))
                if value < 2 or function:
                    self.add(node, function, f"{ {0: 1, 1: 0}.get(value, value + 1)}{digits[2]}")
        elif kind == K.FLOATING_LITERAL:
            self.add(node, function, f"{text} + 1")
        elif kind == K.CXX_BOOL_LITERAL_EXPR:
            self.add(node, function, "false" if text == "true" else "true")
        elif kind == K.UNARY_OPERATOR and text.startswith("!") and not text.startswith("!="):
            self.add(node, function, f"!!({text[1:]})")  # a bool, as `!x` is: a conditional would convert
        elif kind == K.UNARY_OPERATOR and text[:2] in ("++", "--") and parent.kind != K.FOR_STMT:
            self.add(node, function, ("--" if text[:2] == "++" else "++") + text[2:])
        elif kind == K.CALL_EXPR and (called := re.match(r"std::(min|max)\b", text)):
            self.add(node, function, ("std::max" if called[1] == "min" else "std::min") + text[8:])
        start, end = node.extent.start.offset, node.extent.end.offset
        for left, right in self.operands(kids):
            operator = one_line(self.source(left.extent.end.offset, right.extent.start.offset))
            if operator in "+-" and ('"' in text or "string" in node.type.spelling):
                continue
            for other in SWAPS[operator]:
                self.add(node, function, f"{self.source(start, left.extent.end.offset)} {other} "
                                         f"{self.source(right.extent.start.offset, end)}")

    def operands(self, kids):
        """The neighbours with an operator in between; a call of an overloaded one has its name between them, too."""
        names = [kid for kid in kids if self.of(kid) in SWAPS]
        kids = [kid for kid in kids if kid not in names]
        return [(left, right) for left, right in zip(kids, kids[1:])
                if one_line(self.source(left.extent.end.offset, right.extent.start.offset)) in SWAPS]


def find(root, file, arguments):
    found = Finder(root, file, arguments).found.values()
    # A condition that is a comparison, a literal or a negation has its opposite already.
    opposite = {(m.start, m.end) for m in found if m.form == "choice" and (
        m.original in ("true", "false") or m.original.startswith("!") or re.search(r" (<|<=|>|>=|==|!=) ", m.mutated)
        and not re.search(r"&&|\|\|", m.original))}
    return sorted((m for m in found if m.form != "negate" or (m.start, m.end) not in opposite),
                  key=lambda m: (m.start, -m.end, m.rank, m.mutated))


def rewrite(text, mutants):
    """The bytes `text` with all mutants in it; each line keeps its number."""
    groups = {}
    for mutant in mutants:
        groups.setdefault((mutant.start, -mutant.end, -mutant.rank), []).append(mutant)
    spots = sorted(groups)

    def write(low, high, first, last):
        out, at, i = [], low, first
        while i < last:
            start, end = spots[i][0], -spots[i][1]
            inside = i + 1
            while inside < last and spots[inside][0] < end:
                inside += 1
            out += [text[at:start], wrap(groups[spots[i]], write(start, end, i + 1, inside))]
            at, i = end, inside
        return b"".join(out + [text[at:high]])

    return write(0, len(text), 0, len(spots))


def wrap(mutants, inner):
    first = mutants[0]
    if first.form == "delete":
        return b"if (!::shard_mutant(%d)) %s" % (first.id, inner)
    if first.form == "negate":
        return b"(::shard_mutant(%d) != static_cast<bool>(%s))" % (first.id, inner)
    choices = b"".join(b"::shard_mutant(%d) ? (%s) : " % (m.id, one_line(m.mutated).encode()) for m in mutants)
    return b"(%s(%s))" % (choices, inner)
