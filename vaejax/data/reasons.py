"""Summarizes in one line why files were not used, counted by reason."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

# Numbers and quoted names: reasons of one kind differ only in these.
_PARTICULAR = re.compile(r"'[^']*'|\d+")


def count_reasons(reasons: Mapping[str, str], most: int = 5) -> str:
    """Formats reasons with their counts, the most frequent first.

    Reasons that differ only in numbers or quoted names are counted together; an ellipsis stands
    for the parts that differ.

    Args:
      reasons: name -> reason.
      most: largest number of reasons listed; the others are counted together.

    >>> count_reasons({"a": "not a picture", "b": "empty file", "c": "not a picture"})
    '2 × not a picture; 1 × empty file'
    """
    counts: Counter[str] = Counter()
    variants = defaultdict(set)
    for reason in reasons.values():
        kind = _PARTICULAR.sub("…", reason)
        counts[kind] += 1
        variants[kind].add(reason)
    parts = [
        f"{count:,} × {variants[kind].pop() if len(variants[kind]) == 1 else kind}"
        for kind, count in counts.most_common(most)
    ]
    if others := counts.total() - sum(count for _, count in counts.most_common(most)):
        parts.append(f"{others:,} × other reasons")
    return "; ".join(parts)
