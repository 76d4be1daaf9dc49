"""Which classes of two lists are the same, where lists spell their names in different ways."""

import re
from collections import Counter
from collections.abc import Sequence


def plain_spelling(name: str) -> str:
    """Letters and digits alone, in lower case: `petting_animal_(not_cat)` is `petting animal not cat`."""
    return " ".join(re.sub(r"[\W_]+", " ", name.casefold()).split())


def same_classes(wanted: Sequence[str], known: Sequence[str]) -> tuple[int | None, ...]:
    """For each wanted name the number, in `known`, of the class that it means; None where there is none.

    Names count as they are spelled, or else by their plain spelling, where that is one name's alone on
    either side.
    """
    exactly = _only(known)
    spelled = [plain_spelling(name) for name in wanted]
    plainly, times = _only([plain_spelling(name) for name in known]), Counter(spelled)
    return tuple(
        exactly.get(name, plainly.get(plain) if plain and times[plain] == 1 else None)
        for name, plain in zip(wanted, spelled, strict=True)
    )


def _only(names: Sequence[str]) -> dict[str, int]:
    """The numbers of the names that occur once."""
    times = Counter(names)
    return {name: number for number, name in enumerate(names) if times[name] == 1}
