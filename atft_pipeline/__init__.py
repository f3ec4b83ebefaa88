"""J-Quants data in; checked features, a trained ATFT-GAT-FAN model and predictions out.

Only `definitions.py` and `defs/` know Dagster. Every other room is plain Python and can be used without it.
"""
