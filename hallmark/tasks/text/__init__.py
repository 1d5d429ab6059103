"""A language model goes on from a text, in the manner of a domain that it was adapted to."""
