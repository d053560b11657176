"""Holds outcomes of the swarm demo against the numbers: check_factors.py NUMBERS OUTCOMES."""

import collections
import json
import math
import sys

numbers = [int(line) for line in open(sys.argv[1])]
outcomes = [json.loads(line) for line in open(sys.argv[2])]
counts = collections.Counter(outcome["index"] for outcome in outcomes)
assert sorted(counts) == list(range(len(numbers))), "numbers without an outcome"
assert set(counts.values()) == {1}, "numbers with several outcomes"
for outcome in outcomes:
    number = numbers[outcome["index"]]
    assert outcome["input"] == number and math.prod(outcome["result"]) == number, outcome
nodes = collections.Counter(outcome["node"] for outcome in outcomes)
recorded = sum(outcome.get("recorded", False) for outcome in outcomes)
print(f"{len(outcomes)} outcomes, {recorded} of them from the journal:", dict(nodes))
