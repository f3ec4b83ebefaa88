"""The J-Quants v2 API: the only room that talks to it. Raw tables in, typed monthly partitions in the lake out."""
