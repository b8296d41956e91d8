"""What the arrays hold that are the state of streams.

State of S streams with K categories, up to R forecasters each:

- ``head`` (S, 5 + K) int64: observations seen, start of the segment, forecasters in the first and in the second chain,
  observations until the test must be looked at again, and how often each category occurred in the segment;
- ``slack`` (S,) float64: by how much the evidence can still grow before the test must be looked at again, in nats;
- ``rows`` (S, R, K) int64: for each forecaster, how often each category occurred in the segment before its start. The
  first row of a chain is the anchor. A hull has two chains, each in one half of the rows; else there is one;
- ``lengths`` (S, R) int64: the sum of each row, observations before its start;
- ``before`` (S, R) float64: log of the part of its weight and likelihood that no later observation changes, NaN until
  it is needed;
- ``due`` (S, R) int64: until so many observations have been seen, its evidence cannot become positive.
"""

#: Columns of ``head``.
SEEN, START, FIRST, SECOND, LEFT, COUNTS = range(6)
