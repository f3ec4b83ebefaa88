"""The dataset's contract: exactly which columns a plan gives, and the verification of a stored dataset against it.

Derived from the feature catalogue, never written down twice. The writer demands it before a file becomes visible, the
reader demands it again (`verify_dataset`), so no path can train on a dataset with a group missing. Checks of the
values themselves are in `quality.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from atft_pipeline.features import catalog
from atft_pipeline.lake.store import LakeError, read_json, read_record, verify_table
from atft_pipeline.verdict import ContractBroken, Verdict

KEYS = ("code", "date")
KEY_GROUP = "N"
"""The group of keys, knowledge time and labels: never model inputs."""

DTYPES: Mapping[str, pl.DataType] = {
    "f32": pl.Float32(),
    "i8": pl.Int8(),
    "i16": pl.Int16(),
    "i32": pl.Int32(),
    "str": pl.String(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us", "Asia/Tokyo"),
}

FULL_COLUMNS = 306
"""Columns of the complete Standard dataset: the fewest that training takes unless a smaller contract is named."""

FORBIDDEN_INPUT = re.compile(r"^(target|feat_ret|fwd|label)_")
FORBIDDEN_NAME = re.compile(r"(_right$|^date_|_date$|_avail_date$)")
"""Leftovers of joins: a duplicated column or a date carried along."""


@dataclass(frozen=True)
class DatasetColumn:
    """One column of the dataset. `role` is key, label or feature; `kind` says how scaling treats a feature."""

    name: str
    group: str
    role: str
    dtype: str
    kind: str = ""
    spectral: bool = False
    market_wide: bool = False
    """One value per date, the same for every stock: never ranked across stocks."""


@dataclass(frozen=True)
class Contract:
    """The exact columns of a plan's dataset, in order."""

    plan: str
    columns: tuple[DatasetColumn, ...]

    @property
    def name(self) -> str:
        """By plan and width, as `light-216`: what ATFT_CONTRACT must say to train on a smaller contract on purpose."""
        return f"{self.plan}-{len(self.columns)}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @cached_property
    def features(self) -> tuple[DatasetColumn, ...]:
        """The model's inputs, in order."""
        return tuple(c for c in self.columns if c.role == "feature")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.role == "label")

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Group names in contract order."""
        return tuple(dict.fromkeys(c.group for c in self.columns))

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        return {c.name: DTYPES[c.dtype] for c in self.columns}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over name:dtype of every column, in order."""
        text = "\n".join(f"{c.name}:{c.dtype}" for c in self.columns)
        return hashlib.sha256(text.encode()).hexdigest()

    def group(self, name: str) -> tuple[DatasetColumn, ...]:
        return tuple(c for c in self.columns if c.group == name)


def contract_of(plan: str) -> Contract:
    """The contract that the feature catalogue gives for a J-Quants plan."""
    return Contract(
        plan,
        tuple(
            DatasetColumn(e.name, e.group, e.role, e.dtype, e.kind, e.spectral, e.market_wide)
            for e in catalog.columns(plan)
        ),
    )


def check_training_width(contract: Contract, named: str, full: Contract | None = None) -> Verdict:
    """At least 306 columns, unless `named` (ATFT_CONTRACT) is exactly this contract's name.

    A dataset that shrank unnoticed is what training must not accept. `full` is the Standard contract by default; while
    the catalogue itself gives fewer than 306 columns there, its width is no reason to refuse.
    """
    full = full or contract_of("standard")
    width = len(contract.columns)
    asleep = len(full.columns) < FULL_COLUMNS
    want = 0 if asleep or named == contract.name else FULL_COLUMNS
    missing = _missing_groups(full, set(contract.names))
    message = f"contract '{contract.name}': {width} columns"
    if width < want:
        asked = f" (ATFT_CONTRACT is {named!r})" if named else ""
        message = (
            f"training needs at least {want} columns, contract '{contract.name}' has {width}{asked}; missing groups: "
            f"{'; '.join(missing.values())}. Build the missing groups (a higher JQUANTS_PLAN delivers their tables), "
            f"or train on this smaller contract on purpose: ATFT_CONTRACT={contract.name}"
        )
    return Verdict(width >= want, width, want, message, {"missing_groups": ", ".join(missing), "named": named})


def dataset_dir(lake: Path) -> Path:
    return lake / "dataset"


def require_columns(names: Sequence[str], contract: Contract) -> Verdict:
    """Exactly the contract's columns in its order: no fewer, no more, none renamed."""
    have, want = set(names), set(contract.names)
    missing = _missing_groups(contract, have)
    unexpected = [name for name in names if name not in want]
    in_order = list(names) == list(contract.names)
    parts = [f"the dataset has {len(names)} columns, plan '{contract.plan}' wants {len(contract.names)}"]
    if missing:
        parts.append("missing groups: " + "; ".join(missing.values()))
    if unexpected:
        parts.append(f"unexpected columns: {', '.join(unexpected[:12])}")
    if not missing and not unexpected and not in_order:
        parts.append("the columns are repeated or not in the contract's order")
    return Verdict(
        passed=in_order,
        got=len(names),
        want=len(contract.names),
        message=". ".join(parts) + (". Rebuild the features of these groups and assemble again" if missing else ""),
        details={"missing_groups": ", ".join(missing), "unexpected": ", ".join(unexpected)},
    )


def check_names(contract: Contract) -> Verdict:
    """No label-like name among the inputs, no leftover of a join, no name twice, no date as an input."""
    bad = [c.name for c in contract.features if FORBIDDEN_INPUT.match(c.name)]
    bad += [c.name for c in contract.features if c.dtype in ("str", "date", "datetime")]
    bad += [name for name in contract.names if FORBIDDEN_NAME.search(name)]
    bad += [c.name for c in contract.columns if c.role == "label" and not c.name.startswith("target_")]
    bad += [name for name in contract.names if contract.names.count(name) > 1]
    bad = list(dict.fromkeys(bad))
    return Verdict(
        passed=not bad,
        got=len(bad),
        want=0,
        message=f"forbidden column names: {', '.join(bad)}" if bad else "no forbidden column name",
        details={"inputs": len(contract.features)},
    )


def verify_dataset(lake: Path, contract: Contract, *, deep: bool = False) -> dict[str, Any]:
    """The stored dataset's metadata, after comparing every file with it and with the contract.

    `deep` re-reads and re-hashes every value. Raises `ContractBroken` naming the missing groups or the damaged file.
    """
    check_names(contract).require()
    folder = dataset_dir(lake)
    metadata: dict[str, Any] = read_json(folder / "metadata.json")
    require_columns(list(metadata["columns"]), contract).require()
    stored = {path.stem for path in folder.glob("*.parquet")}
    if stored != set(metadata["years"]):
        raise ContractBroken(
            f"{folder}: files of {sorted(stored)}, but metadata.json lists {sorted(metadata['years'])}; assemble again"
        )
    for year, entry in metadata["years"].items():
        path = folder / f"{year}.parquet"
        record = _record(path, deep)
        schema = pl.read_parquet_schema(path)  # the file's own, whatever its record says
        require_columns(list(schema), contract).require()
        wrong = [name for name, dtype in schema.items() if dtype != contract.schema[name]]
        if wrong:
            have, declared = schema[wrong[0]], contract.schema[wrong[0]]
            raise ContractBroken(f"{path}: column {wrong[0]} is {have}, declared {declared}; assemble again")
        if record.content_hash != entry["content_hash"] or record.rows != entry["rows"]:
            raise ContractBroken(f"{path}: does not match metadata.json; assemble the dataset again")
    return metadata


def check_dataset(lake: Path, contract: Contract, *, deep: bool = False) -> Verdict:
    """`verify_dataset` as a verdict: got and want are column counts, the message names what is missing."""
    want = len(contract.names)
    try:
        metadata = verify_dataset(lake, contract, deep=deep)
    except (ContractBroken, LakeError) as broken:
        path = dataset_dir(lake) / "metadata.json"
        got = len(read_json(path)["columns"]) if path.exists() else 0
        return Verdict(False, got, want, str(broken))
    message = f"{want} columns as plan '{contract.plan}' declares, {metadata['rows']:,} rows"
    return Verdict(True, want, want, message, {"rows": metadata["rows"], "hash": metadata["hash"]})


def dataset_years(lake: Path, contract: Contract) -> list[Path]:
    """The verified dataset's files in time order."""
    metadata = verify_dataset(lake, contract)
    return [dataset_dir(lake) / f"{year}.parquet" for year in sorted(metadata["years"])]


def digest(parts: Iterable[object]) -> str:
    """SHA-256 over the canonical JSON of `parts`."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True, default=str).encode()).hexdigest()


def _record(path: Path, deep: bool) -> Any:
    try:
        return verify_table(path) if deep else read_record(path)
    except LakeError as error:
        raise ContractBroken(f"{error}; assemble the dataset again") from error


def _missing_groups(contract: Contract, have: set[str]) -> dict[str, str]:
    """Group name -> a sentence with how many of its columns are missing, and which."""
    missing: dict[str, str] = {}
    for group in contract.groups:
        columns = [c.name for c in contract.group(group)]
        lost = [name for name in columns if name not in have]
        if lost:
            sample = ", ".join(lost[:4]) + (", ..." if len(lost) > 4 else "")
            missing[group] = f"{group} ({len(lost)} of {len(columns)} columns: {sample})"
    return missing
