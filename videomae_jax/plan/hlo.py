"""What chips send each other in one step, read from a compiled program's text.

A scan over layers is a loop in it, whose body stands there once: what it holds is counted as often as the
loop runs. That number is the compiler's own note on the loop (`known_trip_count`) where there is one, else
the constant that the loop's condition compares its counter with, divided by what the body adds to it; it
begins at 0.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_COLLECTIVE = re.compile(rf"({_KINDS})(-start)?$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+(?:e\d\w*)?)\[([\d,]*)\]")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_INDEX = re.compile(r"index=(\d+)")
_OPERAND = re.compile(r"%([\w.-]+)")


@dataclass(frozen=True)
class Collective:
    """One kind of collective: how often each chip takes part in a step, and the bytes of the whole arrays.

    Of a gather the whole is its result, of a scatter its operand; of the others both have one size.
    """

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: `name = shape opcode(rest`."""

    name: str
    shape: str
    opcode: str
    rest: str


Computations = dict[str, list[Instruction]]


def read_collectives(hlo: str) -> tuple[Collective, ...]:
    """The collectives that one run of a compiled module makes, by kind, the one with most bytes first."""
    computations, entry = _computations(hlo)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for times, instruction in _once_each(_executed(computations, entry)):
        found = _COLLECTIVE.match(instruction.opcode)
        assert found is not None
        kind = found[1]
        if kind == "all-reduce" and instruction.rest.startswith(_SCATTERED):
            kind = "reduce-scatter"
        counts[kind] += times
        sizes[kind] += times * _whole_bytes(kind, instruction, started=found[2] is not None)
    kinds = sorted(counts, key=lambda kind: -sizes[kind])
    return tuple(Collective(kind, counts[kind], sizes[kind]) for kind in kinds)


def _once_each(executed: Iterable[tuple[int, Instruction]]) -> list[tuple[int, Instruction]]:
    """A collective that is spread over several fused computations, also over those of inner loops, stands in
    each of them with the same chain number; it is run as often as the one that is run least."""
    single: list[tuple[int, Instruction]] = []
    chains: dict[str, tuple[int, Instruction]] = {}
    for times, instruction in executed:
        chain = _CHAIN.search(instruction.rest)
        if chain is None:
            single.append((times, instruction))
        elif chain[1] not in chains or times < chains[chain[1]][0]:
            chains[chain[1]] = times, instruction
    return [*single, *chains.values()]


_SCATTERED = "reduce-scatter of "


def _computations(hlo: str) -> tuple[Computations, str]:
    """Instructions by computation, and the name of the entry.

    On TPUs a reduce-scatter is an all-reduce inside a computation named so; it is marked here.
    """
    computations: Computations = {}
    name = entry = ""
    for line in hlo.splitlines():
        if line.startswith(("%", "ENTRY ")):
            name = line.removeprefix("ENTRY ").removeprefix("%").split(" ", 1)[0]
            entry = name if line.startswith("ENTRY ") else entry
            computations[name] = []
        elif line.startswith("  ") and " = " in line:
            instruction = _instruction(line)
            if instruction.opcode == "all-reduce" and name.startswith("all-reduce-scatter"):
                instruction = replace(instruction, rest=_SCATTERED + instruction.rest)
            computations[name].append(instruction)
    return computations, entry


def _instruction(line: str) -> Instruction:
    """Take `[ROOT ]%name = shape opcode(rest` apart; the shape of a tuple is in parentheses."""
    name, _, text = line.strip().removeprefix("ROOT ").partition(" = ")
    depth = 0
    for end, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == " " and depth == 0:
            opcode, _, rest = text[end + 1 :].partition("(")
            return Instruction(name.removeprefix("%"), text[:end], opcode, rest)
    raise ValueError(f"cannot read this line of a compiled program: {line[:300]}")


def _executed(computations: Computations, name: str, times: int = 1) -> Iterator[tuple[int, Instruction]]:
    """Each collective reached from a computation, and how often it runs."""
    for instruction in computations[name]:
        if _COLLECTIVE.match(instruction.opcode):
            yield times, instruction
        elif instruction.opcode == "while":
            body = _CALLED.search(instruction.rest)
            assert body is not None
            yield from _executed(computations, body[1], times * _trip_count(instruction, computations))
        elif not instruction.opcode.endswith(("-done", "-update")):
            called = _CALLED.findall(instruction.rest)
            for branches in _BRANCHES.findall(instruction.rest):
                called += _OPERAND.findall(branches)
            for each in called:
                yield from _executed(computations, each, times)


def instructions(hlo: str) -> Iterator[tuple[float, Instruction]]:
    """What one run of a compiled module executes, a fusion as one instruction, and how often.

    Of a conditional each branch counts as if all were taken equally often.
    """
    computations, entry = _computations(hlo)

    def run_by(name: str, times: float) -> Iterator[tuple[float, Instruction]]:
        for instruction in computations[name]:
            if instruction.opcode in ("while", "conditional", "call"):
                called = _CALLED.findall(instruction.rest)
                for branches in _BRANCHES.findall(instruction.rest):
                    called += _OPERAND.findall(branches)
                share: float = 1
                if instruction.opcode == "while":
                    share = _trip_count(instruction, computations)
                elif instruction.opcode == "conditional":
                    share = 1 / len(called)
                for each in called:
                    yield from run_by(each, times * share)
            else:
                yield times, instruction

    return run_by(entry, 1)


def _trip_count(loop: Instruction, computations: Computations) -> int:
    """How often a loop runs; 1 where that is not known when compiling."""
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition, body = _CONDITION.search(loop.rest), _CALLED.search(loop.rest)
    assert condition is not None
    assert body is not None
    compared = computations[condition[1]][-1]
    if compared.opcode != "compare" or "direction=LT" not in compared.rest:
        return 1
    inside = {each.name: each for each in computations[condition[1]]}
    counter, bound = (inside.get(name) for name in _operands(compared))
    if counter is None or bound is None or (count := _constant(bound)) is None:
        return 1
    place = _INDEX.search(counter.rest)
    return -(-count // _increment(computations[body[1]], int(place[1]) if place else 0))


def _increment(body: list[Instruction], place: int) -> int:
    """What a loop's body adds to its counter, at this place of its tuple; 1 where that is unclear."""
    inside = {each.name: each for each in body}
    added = inside.get(_operands(body[-1])[place]) if body[-1].opcode == "tuple" else None
    if added is None or added.opcode != "add":
        return 1
    constants = [_constant(inside[name]) for name in _operands(added) if name in inside]
    return next((each for each in constants if each), 1)


def _operands(instruction: Instruction) -> list[str]:
    return _OPERAND.findall(instruction.rest.split(")", 1)[0])


def _constant(instruction: Instruction) -> int | None:
    value = instruction.rest.split(")", 1)[0]
    return int(value) if instruction.opcode == "constant" and value.isdigit() else None


def _whole_bytes(kind: str, instruction: Instruction, started: bool) -> int:
    """Bytes of the larger side of a collective."""
    if started and kind != "all-reduce":  # Which has the results alone.
        operands, results, *_ = _parts(instruction.shape)
        return max(shape_bytes(operands), shape_bytes(results))
    if kind == "reduce-scatter" and instruction.opcode != "all-reduce":
        return shape_bytes(instruction.shape) * _group_size(instruction.rest)
    return shape_bytes(instruction.shape)


def _parts(shape: str) -> list[str]:
    """The parts of a tuple's shape, of which each may be a tuple: operands, results, and counters."""
    parts, depth = [""], 0
    for letter in shape.removeprefix("(").removesuffix(")"):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def shape_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, from its shape as a compiled program writes it."""
    return sum(_array_bytes(*array) for array in _ARRAY.findall(shape))


def _group_size(rest: str) -> int:
    """Chips that share one collective, in any of the ways of writing the groups."""
    if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return groups[1].count(",") + 1
    if groups := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(groups[1])
    if groups := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", groups[2]))
    raise ValueError(f"cannot read the groups of a reduce-scatter: {rest[:300]}")


def _array_bytes(dtype: str, sizes: str) -> int:
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return prod(int(size) for size in sizes.split(",") if size) * bits // 8
