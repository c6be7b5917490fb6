"""A toy paper that uses everything a paper may say, and ways in which it can be faulty."""

from __future__ import annotations

PAPER = """\
slug: toy-0
title: Toy
family: text
study: toy
story: A story.
seeds: [0, 1, 2]
variants:
  plain: {canonical: true, bases: [constant-0]}
  small-sample: {steps: 5, arms: [mean, borrowed]}
  show: {demo: true, seeds: [0]}
arms:
  mean: {says: the mean}
  median: {says: the median, rule: median}
  borrowed: {uses: mean, rule: median}
  fixed: {trained: false, seeds: [0], resources: {cpus: 2}}
profiles:
  smoke: {steps: 4}
  small: {minutes: 1, steps: 50}
  full: {steps: 1000, needs: patience, expect: {parameters: 124e6}}
claims:
  - id: close
    says: The mean is close.
    cites: Table 1
    scope: small
    join: {k_of_n: 1}
    gates:
      - {metric: error, arm: fixed, below: 9}
    tests:
      - {metric: error, arm: mean, at: {share: 1}, below: 3, also: every seed}
      - {metric: error, arm: median, minus: mean, above: -3}
      - {metric: error, arm: median, above: 0.1, times: mean}
      - {metric: error, arm: mean, at: {share: 1}, over: mean, over_at: {share: 4}, below: 2}
      - {metric: count, arm: mean, at: {share: 1}, equals: 50, within: 0}
      - {metric: error, arm: mean, equals_arm: median, within: 1}
      - {metric: count, arm: mean, along: share, values: [4, 2, 1], direction: increasing}
      - {metric: error, arm: mean, along: share, method: spearman, below: 1}
      - {metric: error, arm: mean, with: count, above: -1}
      - says: both
        all_of:
          - {metric: error, arm: mean, below: 3}
          - {metric: error, arm: median, below: 3}
  - id: grows
    says: It scales.
    cites: Figure 2
    scope: full-only
    needs: a million numbers
deviations:
  - {what: fewer numbers, why: time}
history:
  - {date: 2026-11-25, what: a bar, why: a slip of units}
"""

# (text, what replaces it, what must be said about it)
STRUCTURAL_FAULTS = [
    ("family: text", "family: txt", "family: expected one of text, language"),
    ("family: text", "family: txt", "Did you mean 'text'?"),
    ("study: toy", "study: toi", "study: 'toi' is no study; expected one of"),
    ("title: Toy\n", "", "'title' is missing; expected title of the paper"),
    ("title: Toy", "title: 5", "title: expected text, got 5"),
    ("seeds: [0, 1, 2]\nv", "seeds: 3\nv", "seeds: expected a list, got 3"),
    ("seeds: [0, 1, 2]\nv", "seeds: [0, a]\nv", "seeds[1]: expected a whole number, got the text 'a'"),
    ("seeds: [0, 1, 2]\nv", "seeds: [-1]\nv", "seeds[0]: expected a number of at least 0, got -1"),
    ("story: A", "stroy: A", "stroy: unknown key; expected one of slug, title"),
    ("story: A", "stroy: A", "Did you mean 'story'?"),
    ("{steps: 5,", "{stesp: 5,", "variants.small-sample.stesp: 'stesp' is no parameter of study toy"),
    ("{steps: 5,", "{stesp: 5,", "Did you mean 'steps'?"),
    ("{steps: 5,", "{steps: 0,", "variants.small-sample.steps: expected a number of at least 1, got 0"),
    ("rule: median}\n  b", "rule: medain}\n  b", "arms.median.rule: expected one of mean, median"),
    ("rule: median}\n  b", "spread: '2'}\n  b", "arms.median.spread: expected a number, got the text '2'"),
    ("cpus: 2", "cpus: 0", "arms.fixed.resources.cpus: expected a number above 0, got 0"),
    ("cpus: 2", "cpu: 2", "arms.fixed.resources.cpu: unknown key; expected one of cpus, gpus, memory, exclusive"),
    ("trained: false", "trained: 0", "arms.fixed.trained: expected true or false, got 0"),
    ("  small: {", "  tiny: {", "profiles.tiny: expected one of smoke, small, full"),
    ("  small: {", "  tiny: {", "profiles: 'small' is missing"),
    ("minutes: 1", "minutes: soon", "profiles.small.minutes: expected a number, got the text 'soon'"),
    ("cites: Table 1", "cites:", "claims[0].cites: expected text, got nothing"),
    ("scope: full-only", "scope: full", "claims[1].scope: expected one of small, full-only"),
    ("k_of_n: 1", "k_of_n: 0", "claims[0].join.k_of_n: expected a number of at least 1, got 0"),
    ("join: {k_of_n: 1}", "join: most", "claims[0].join: expected one of all_of, any_of, got the text 'most'"),
    ("minus: mean, above: -3", "minus: mean", "claims[0].tests[1]: give exactly one of 'above' and 'below'"),
    ("minus: mean, above", "minus: mean, below: 4, above", "claims[0].tests[1]: give exactly one of 'above' and"),
    ("minus: mean, above", "minus: mean, over: mean, above", "claims[0].tests[1].over: unknown key"),
    ("equals: 50, within: 0", "equals: 50", "claims[0].tests[4]: 'within' is missing; expected tolerance"),
    ("equals_arm: median, within", "equals_arm: median, equals: 1, within", "claims[0].tests[5]: give exactly one of"),
    ("values: [4, 2, 1]", "values: [4]", "claims[0].tests[6].values: expected a number of entries of at least 2"),
    ("values: [4, 2, 1], ", "", "claims[0].tests[6]: 'values' is missing"),
    ("direction: increasing", "direction: up", "claims[0].tests[6].direction: expected one of increasing, decreasing"),
    ("method: spearman", "method: spearman, with: count", "claims[0].tests[7]: give exactly one of 'along'"),
    ("at: {share: 1}, below: 3", "at: {share: [1]}, below: 3", "claims[0].tests[0].at.share: expected"),
    ("also: every seed", "also: each seed", "claims[0].tests[0].also: expected one of every seed"),
    ("why: time", "why: ''", "deviations[0].why: expected a number of characters of at least 1"),
]
"""Faults of single values, which the JSON Schema shows too."""

RELATIONAL_FAULTS = [
    ("slug: toy-0", "slug: toy-1", "slug: 'toy-1' stands in the folder 'toy-0'"),
    ("slug: toy-0", "slug: Toy_0", "slug: 'Toy_0' is no valid name here; expected a name such as 'one-d-piece'"),
    ("canonical: true", "canonical: false", "variants: no variant is marked 'canonical: true'; expected exactly one"),
    ("show: {demo: true", "show: {demo: true, canonical: true", "variants: plain, show are all marked"),
    ("show: {demo: true", "full: {demo: true", "variants.full: 'full' is no valid name here"),
    ("bases: [constant-0]", "bases: [constant-9]", "variants.plain.bases[0]: the text 'constant-9' is no base"),
    ("bases: [constant-0]", "bases: [constant-9]", "Did you mean 'constant-0'?"),
    ("bases: [constant-0]", "data: [cifar]", "variants.plain.data[0]: the text 'cifar' is no data set"),
    ("arms: [mean, borrowed]", "arms: [maen]", "variants.small-sample.arms[0]: the text 'maen' is no arm"),
    ("arms: [mean, borrowed]", "arms: [borrowed]", "arm 'borrowed' needs the model of 'mean', which does not run"),
    ("show: {demo: true, seeds: [0]}", "show: {demo: true, seeds: [1]}", "arm 'fixed' has none of the seeds [1]"),
    ("uses: mean", "uses: maen", "arms.borrowed.uses: the text 'maen' is no arm"),
    ("uses: mean", "uses: fixed", "arms.borrowed.uses: arm 'fixed' is not trained"),
    ("uses: mean", "uses: mean, trained: false", "arms.borrowed.trained: says nothing beside 'uses'"),
    ("uses: mean", "uses: mean, spread: 3.0", "arms.borrowed.spread: the model is that of 'mean', trained otherwise"),
    ("uses: mean", "uses: mean, seeds: [0, 7]", "seeds [7] of arm 'borrowed' have no model: 'mean' is not trained"),
    ("{says: the mean}", "{uses: borrowed}", "cycle: mean -> borrowed -> mean"),
    ("mean: {says: the mean}", "my-mean: {}\n  mean: {}", "arms.my-mean: 'my-mean' is no valid name here"),
    ("  smoke: {steps: 4}\n", "", "warning: profiles: 'smoke' is missing"),
    ("steps: 50", "steps: 5e1", "profiles.small.steps: expected a whole number, got 50.0"),
    ("id: grows", "id: close", "claims[1].id: 'close' stands twice (first on line 21)"),
    ("    needs: a million numbers\n", "", "claims[1]: 'needs' is missing"),
    ("scope: full-only", "scope: small", "claims[1]: 'tests' is missing"),
    ("k_of_n: 1", "k_of_n: 11", "'join' asks for 11 of 10 tests"),
    ("scope: small", "scope: small\n    variant: plane", "claims[0].variant: the text 'plane' is no variant"),
    ("scope: small", "scope: small\n    variant: show", "claims[0].variant: 'show' is a demo, which is never counted"),
    ("scope: small", "scope: small\n    variant: small-sample", "arm 'median' does not run in variant 'small-sample'"),
    ("arm: fixed, below", "arm: fixt, below", "claims[0].gates[0].arm: the text 'fixt' is no arm"),
    ("metric: count, arm: mean, at", "metric: cuont, arm: mean, at", "claims[0].tests[4].metric: the text 'cuont'"),
    ("metric: count, arm: mean, at", "metric: cuont, arm: mean, at", "Did you mean 'count'?"),
    ("with: count", "with: cuont", "claims[0].tests[8].with: the text 'cuont' is no metric of study toy"),
    ("times: mean", "times: maen", "claims[0].tests[2].times: the text 'maen' is no arm"),
    ("minus: mean, above", "minus: median, above", "claims[0].tests[1]: arm 'median' is compared with itself"),
    ("values: [4, 2, 1]", "values: [4, 2, 4]", "claims[0].tests[6]: 'values' holds a value twice"),
    ("values: [4, 2, 1]", "at: {share: 1}, values: [4, 1]", "'share' stands both in 'at' (fixed) and in 'along'"),
    ("values: [4, 2, 1]", "values: [4, b]", "claims[0].tests[6].values: expected all numbers or all text"),
    (
        "          - {metric: error, arm: median, below: 3}",
        "          - {metric: error, arm: medan, below: 3}",
        "claims[0].tests[9].all_of[1].arm: the text 'medan' is no arm",
    ),
    ("date: 2026-11-25", "date: yesterday", "history[0].date: expected a date (YYYY-MM-DD), got 'yesterday'"),
    ("seeds: [0, 1, 2]\nv", "seeds: [0, 1]\nv", "warning: claims[0]: arm 'mean' is judged with 2 seed(s)"),
]
"""Faults of values that do not fit together, or name what does not exist."""
