"""Reads every value of every file in a lake and names what is damaged, missing or foreign.

What must be there comes from the records that the writers leave: manifests of raw tables, group.json, metadata.json,
panel.json, the training panel's manifest, the state and the kit of each run. What may be there comes from `PLACES`. The
rest is foreign: left alone by every reader, and better moved away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from atft_pipeline.lake.leftovers import TEMPORARY
from atft_pipeline.lake.manifest import NAME, entries
from atft_pipeline.lake.store import LakeError, read_array, read_json, read_record, verify_table

CHUNK = 1 << 22
WORKERS = 4
"""Files read at once: hashing and decoding release the interpreter, and reading waits for the disk."""

Kind = Literal["damaged", "missing", "foreign"]
Check = Callable[[Path], int]
"""Reads a file whole and returns its rows (0 where it has none). Raises `LakeError` when it is not as written."""


@dataclass(frozen=True)
class Fault:
    """One broken file, and what to do about it."""

    path: Path
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.what}"


@dataclass
class Report:
    """What was read, and what was found."""

    files: int = 0
    bytes: int = 0
    rows: int = 0
    leftovers: int = 0
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        faults = [{"path": str(fault.path), "kind": fault.kind, "what": fault.what} for fault in self.faults]
        return {**{name: getattr(self, name) for name in ("files", "bytes", "rows", "leftovers")}, "faults": faults}


def verify_lake(
    lake: Path,
    endpoints: Mapping[str, str] | None = None,
    *,
    workers: int = WORKERS,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Verify the lake at `lake`. `endpoints` are the declared raw tables with their API paths (None: any table).

    Raises `LakeError` when there is no lake. `progress` is called with files done and files in all.
    """
    if not lake.is_dir():
        raise LakeError(f"{lake}: no lake here; build one, or name it with --lake")
    report = Report()
    listed: dict[Path, Check | None] = {}
    for path, check in _listed(lake, report):
        listed[path] = check
    found = list(_files(lake, report))
    report.faults += [
        Fault(path, "missing", "listed by its record, but not there; " + _remedy(lake, path))
        for path in sorted(set(listed) - set(found))
        if not path.exists()
    ]
    work: list[tuple[Path, Check]] = []
    complete = {path.parent for path in listed}
    for path in found:
        check = listed.get(path) or _check_of(lake, path, endpoints)
        if check is None or (path not in listed and path.parent in complete and path.suffix in (".parquet", ".npy")):
            report.faults.append(Fault(path, "foreign", _foreign(lake, path, endpoints)))
        else:
            work.append((path, check))
    _read_all(lake, work, report, workers, progress)
    report.faults.sort(key=lambda fault: (fault.kind, fault.path))
    return report


def _read_all(
    lake: Path,
    work: Sequence[tuple[Path, Check]],
    report: Report,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = {pool.submit(check, path): path for path, check in work}
        for done, future in enumerate(as_completed(futures), start=1):
            path = futures[future]
            report.files += 1
            report.bytes += path.lstat().st_size if path.exists() else 0
            try:
                report.rows += future.result()
            except LakeError as error:
                text = str(error).removeprefix(f"{path}: ").split(";")[0]
                report.faults.append(Fault(path, "damaged", f"{text}; {_remedy(lake, path)}"))
            if progress:
                progress(done, len(work))


def _files(lake: Path, report: Report) -> Iterator[Path]:
    """Every file and link below `lake`, except temporary ones, which are counted."""
    for folder, folders, files in os.walk(lake):
        for name in list(folders):
            if TEMPORARY.match(name):
                report.leftovers += 1
                folders.remove(name)
            elif Path(folder, name).is_symlink():
                yield Path(folder, name)
        for name in files:
            if TEMPORARY.match(name):
                report.leftovers += 1
            else:
                yield Path(folder, name)


# --- what must be there ----------------------------------------------------------------------------------------


def _listed(lake: Path, report: Report) -> Iterator[tuple[Path, Check | None]]:
    """Files that a record lists, each with the check that compares it with that record."""
    sources: list[tuple[Path, Callable[[Path], Iterator[tuple[Path, Check | None]]]]] = []
    sources += [(path, _of_raw) for path in sorted(lake.glob(f"raw/*/{NAME}"))]
    sources += [(path, _of_group) for path in sorted(lake.glob("features/*/group.json"))]
    sources += [(path, _of_dataset) for path in sorted(lake.glob("dataset/metadata.json"))]
    sources += [(path, _of_market_panel) for path in sorted(lake.glob("market_panel/panel.json"))]
    sources += [(path, _of_training_panel) for path in sorted(lake.glob("training_panel/manifest.json"))]
    sources += [(path, _of_run) for path in sorted(lake.glob("runs/*/status.json")) if not path.parent.is_symlink()]
    sources += [(path, _of_kit) for path in sorted(lake.glob("runs/*/kit.json")) if not path.parent.is_symlink()]
    sources += [(path, _of_champion) for path in sorted(lake.glob("champion/champion.json"))]
    for path, reader in sources:
        try:
            yield from reader(path)
        except LakeError as error:
            report.faults.append(Fault(path, "damaged", str(error).removeprefix(f"{path}: ")))
        except (KeyError, TypeError, AttributeError) as error:
            report.faults.append(Fault(path, "damaged", f"{type(error).__name__} {error}; {_remedy(lake, path)}"))
    for folder, record in (("features/*", "group.json"), ("dataset", "metadata.json")):
        for place in sorted(lake.glob(folder)):
            if any(place.glob("*.parquet")) and not (place / record).exists():
                report.faults.append(Fault(place / record, "missing", _remedy(lake, place / record)))


def _of_raw(path: Path) -> Iterator[tuple[Path, Check | None]]:
    for name, entry in entries(path.parent).items():
        hashes = {said["content_hash"] for said in entry.values()}
        partition = path.parent / name
        if "current" in entry or partition.exists():  # noted, then killed before the rename: not there yet
            yield partition, _table_with(hashes, "manifest.json")


def _of_group(path: Path) -> Iterator[tuple[Path, Check | None]]:
    stored = read_json(path)
    _require_hash(path, stored["hash"], _digest(stored["years"].items()))
    for year, content in stored["years"].items():
        yield path.parent / f"{year}.parquet", _table_with({content}, "group.json")


def _of_dataset(path: Path) -> Iterator[tuple[Path, Check | None]]:
    stored = read_json(path)
    years = stored["years"]
    content = [stored["contract_hash"], *((year, entry["content_hash"]) for year, entry in sorted(years.items()))]
    _require_hash(path, stored["hash"], _digest(content))
    for year, entry in years.items():
        yield path.parent / f"{year}.parquet", _table_with({entry["content_hash"]}, "metadata.json")
    yield path.parent / "feature_index.json", None


def _of_market_panel(path: Path) -> Iterator[tuple[Path, Check | None]]:
    stored = read_json(path)
    arrays = stored["arrays"]
    whole = hashlib.sha256("".join(f"{name}{digest}" for name, digest in arrays.items()).encode()).hexdigest()
    _require_hash(path, stored["hash"], whole)
    for name, digest in arrays.items():
        yield path.parent / f"{name}.npy", _values_with(digest)


def _of_training_panel(path: Path) -> Iterator[tuple[Path, Check | None]]:
    stored = read_json(path)
    body = {key: value for key, value in stored.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    _require_hash(path, stored["hash"], hashlib.sha256(text.encode()).hexdigest())
    for name, digest in stored["files"].items():
        yield path.parent / name, _bytes_with(digest)


def _of_run(path: Path) -> Iterator[tuple[Path, Check | None]]:
    if read_json(path)["state"] == "complete":
        for name in ("metrics_summary.json", "scores.npy", "quantiles.npy", "ckpt/final.pt"):
            yield path.parent / name, None
        uncertainty = path.parent / "uncertainty.npy"
        if uncertainty.exists():  # a run without dropout passes has none
            yield uncertainty, None


def _of_kit(path: Path) -> Iterator[tuple[Path, Check | None]]:
    stored = read_json(path)
    _require_hash(path, stored["hash"], _digest([{key: value for key, value in stored.items() if key != "hash"}]))
    yield path.parent / "ckpt" / "final.pt", _bytes_with(stored["checkpoint_hash"], path.name)
    yield path.parent / "dates.npy", None
    yield path.parent / "codes.npy", None


def _of_champion(path: Path) -> Iterator[tuple[Path, Check | None]]:
    yield path.parents[1] / "runs" / str(read_json(path)["run_id"]) / "kit.json", None


def _require_hash(path: Path, said: str, found: str) -> None:
    if said != found:
        raise LakeError(f"{path}: does not match its own hash; build the asset that writes it again")


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True, default=str).encode()).hexdigest()


# --- how each kind of file is read -----------------------------------------------------------------------------


def _table(path: Path) -> int:
    return verify_table(path).rows


def _table_with(hashes: set[str], record: str) -> Check:
    def check(path: Path) -> int:
        stored = verify_table(path)
        if stored.content_hash not in hashes:
            raise LakeError(f"{path}: not the file that {record} lists")
        if path.parent.parent.name == "raw":
            _require_month(path, stored.source.get("from", ""))
        return stored.rows

    return check


def _raw_table(endpoint: str | None) -> Check:
    def check(path: Path) -> int:
        stored = verify_table(path)
        said = stored.source.get("endpoint", "")
        if endpoint and said != endpoint:
            raise LakeError(f"{path}: in the wrong place, its rows are of {said or 'no endpoint'}, not {endpoint}")
        _require_month(path, stored.source.get("from", ""))
        return stored.rows

    return check


def _require_month(path: Path, first: str) -> None:
    if path.stem != "all" and first and not first.startswith(path.stem):
        raise LakeError(f"{path}: in the wrong place, its rows begin on {first}")


def _plain_parquet(path: Path) -> int:
    """A Parquet file of the simulated service, which has no record: every page is read."""
    try:
        return int(pq.read_table(path).num_rows)
    except (OSError, ValueError) as error:
        raise LakeError(f"{path}: damaged ({error})") from error


def _values_with(digest: str) -> Check:
    def check(path: Path) -> int:
        array = np.ascontiguousarray(read_array(path, mmap=True))
        found = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
        if found != digest:
            raise LakeError(f"{path}: values do not match panel.json")
        return 0

    return check


def _bytes_with(digest: str, record: str = "manifest.json") -> Check:
    def check(path: Path) -> int:
        found = hashlib.sha256()
        with path.open("rb") as stream:
            while piece := stream.read(CHUNK):
                found.update(piece)
        if found.hexdigest() != digest:
            raise LakeError(f"{path}: bytes do not match {record}")
        return 0

    return check


def _array(path: Path) -> int:
    read_array(path, mmap=True)  # its length is compared with its header
    return 0


def _zip(path: Path) -> int:
    """Checkpoints and graphs are zip archives, with a checksum for each member."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise LakeError(f"{path}: damaged ({error})") from error
    if bad:
        raise LakeError(f"{path}: damaged in {bad}")
    return 0


def _database(path: Path) -> int:
    """A study's trials: SQLite reads every page."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
            found = opened.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        raise LakeError(f"{path}: damaged ({error})") from error
    if found != ("ok",):
        raise LakeError(f"{path}: damaged ({found[0]})")
    return 0


def _json(path: Path) -> int:
    read_json(path)
    return 0


def _lines(path: Path) -> int:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise LakeError(f"{path}: line {number} is no JSON") from error
    return 0


def _statistics(path: Path) -> int:
    from atft_pipeline.dataset.scaling import Statistics
    from atft_pipeline.verdict import ContractBroken

    try:
        Statistics.load(path.parents[1])
    except (ContractBroken, KeyError, TypeError) as error:
        raise LakeError(f"{path}: {error}") from error
    return 0


def _text(path: Path) -> int:
    if not path.stat().st_size:
        raise LakeError(f"{path}: empty")
    return 0


def _link(path: Path) -> int:
    if not path.exists():
        raise LakeError(f"{path}: points nowhere")
    return 0


def _nothing(path: Path) -> int:
    return 0


PLACES: tuple[tuple[str, Check], ...] = (
    (r"raw/[a-z0-9_]+/manifest\.json", _json),
    (r"raw/[a-z0-9_]+/_[a-z]+/.+\.parquet", _table),
    (r"raw/[a-z0-9_]+/_[a-z]+/.+\.json", _json),
    (r"(features/[a-z0-9_]+|dataset)/\d{4}\.parquet", _table),
    (r"features/[a-z0-9_]+/group\.json", _json),
    (r"dataset/(metadata|feature_index)\.json", _json),
    (r"market_panel/panel\.json", _json),
    (r"training_panel/manifest\.json", _json),
    (r"normalization_stats/stats\.json", _statistics),
    (r"normalization_stats/[a-z_]+\.json", _json),
    (r"runs/last", _link),
    (r"runs/memory\.json", _json),
    (r"runs/graphs/[0-9a-f]+\.npz", _zip),
    (r"runs/[0-9a-f]{12}/ckpt/.+\.pt", _zip),
    (r"runs/[0-9a-f]{12}/.+\.npy", _array),
    (r"runs/[0-9a-f]{12}/.+\.jsonl", _lines),
    (r"runs/[0-9a-f]{12}/.+\.json", _json),
    (r"runs/[0-9a-f]{12}/.+\.(png|log|txt)", _text),
    (r"hpo/last", _link),
    (r"hpo/[0-9a-f]{12}/trials\.sqlite", _database),
    (r"hpo/[0-9a-f]{12}/trials\.sqlite-(journal|wal|shm)", _nothing),
    (r"hpo/[0-9a-f]{12}/runs/.+\.(pt|npz)", _zip),
    (r"hpo/[0-9a-f]{12}/.+\.jsonl", _lines),
    (r"hpo/[0-9a-f]{12}/.+\.json", _json),
    (r"hpo/[0-9a-f]{12}/page\.html", _text),
    (r"hpo/[0-9a-f]{12}/(.+/)?stacks\.txt", _nothing),
    (r"walk_forward/last", _link),
    (r"walk_forward/(folds/)?[0-9a-f]{12}/(scores/)?[a-z0-9]+\.parquet", _table),
    (r"walk_forward/folds/[0-9a-f]{12}/normalization_stats/stats\.json", _statistics),
    (r"walk_forward/folds/[0-9a-f]{12}/runs/last", _link),
    (r"walk_forward/folds/[0-9a-f]{12}/.+\.(pt|npz)", _zip),
    (r"walk_forward/folds/[0-9a-f]{12}/.+\.npy", _array),
    (r"walk_forward/folds/[0-9a-f]{12}/.+\.jsonl", _lines),
    (r"walk_forward/(folds/)?[0-9a-f]{12}/.+\.json", _json),
    (r"walk_forward/[0-9a-f]{12}/page\.html", _text),
    (r"walk_forward/folds/[0-9a-f]{12}/(log|.+/stacks)\.txt", _nothing),
    (r"evaluation/[0-9a-f]{12}/.+\.parquet", _table),
    (r"evaluation/[0-9a-f]{12}/.+\.json", _json),
    (r"evaluation/[0-9a-f]{12}/.+\.(html|png|csv|txt)", _text),
    (r"predictions/.+\.parquet", _table),
    (r"predictions/.+\.json", _json),
    (r"champion/champion\.json", _json),
    (r"(revisions|nights|alerts)/.+\.jsonl", _lines),
    (r"nights/.+\.md", _text),
    (r"market/.+\.parquet", _plain_parquet),
    (r"market/.+\.json", _json),
    (r"plan\.json", _json),
    (r"(requests|plan)\.json", _json),
    (r"requests\.json\.[0-9-]+", _nothing),
    (r"warehouse\.duckdb", _text),
    (r"(.*/)?\.?[a-z.]+\.(lock|generating)", _nothing),
)
"""Path below the lake -> how such a file is read. Raw partitions and what a record lists come before."""

_COMPILED = tuple((re.compile(pattern), check) for pattern, check in PLACES)
_PARTITION = re.compile(r"raw/([a-z0-9_]+)/(?:\d{4}-\d{2}|all)\.parquet")


def _check_of(lake: Path, path: Path, endpoints: Mapping[str, str] | None) -> Check | None:
    place = path.relative_to(lake).as_posix()
    partition = _PARTITION.fullmatch(place)
    if partition:
        if endpoints is not None and partition[1] not in endpoints:
            return None
        return _raw_table(endpoints[partition[1]] if endpoints is not None else None)
    return next((check for pattern, check in _COMPILED if pattern.fullmatch(place)), None)


def _foreign(lake: Path, path: Path, endpoints: Mapping[str, str] | None) -> str:
    place = path.relative_to(lake).as_posix()
    partition = _PARTITION.fullmatch(place)
    what = "nothing of this project lies here"
    if partition and endpoints is not None and partition[1] not in endpoints:
        what = f"{partition[1]} is no raw table of this project"
    elif path.suffix == ".parquet" and path.is_file():
        try:
            read_record(path)
            what = "written by this project, but its place is elsewhere or its record does not list it"
        except LakeError:
            what = "not written by this project"
    return f"{what}; move it out of the lake"


def _remedy(lake: Path, path: Path) -> str:
    """What to run, by where the file lies."""
    parts = path.relative_to(lake).parts
    room = parts[0]
    if room == "raw" and len(parts) > 2 and parts[2] != NAME:
        return f"remove it if it is there, and materialise raw/{parts[1]} for {Path(parts[-1]).stem} again"
    if room == "features" and len(parts) > 1:
        return f"materialise features/{parts[1]} again"
    if room == "runs":
        return "remove the run's folder (or the graph) and train again"
    if room == "walk_forward":
        return "remove its folder (below folds/: the fold's) and start the walk-forward again"
    if room == "hpo":
        return "remove the study's folder and search again"
    if room == "champion":
        return "put it back from a copy, or remove it and promote again: python -m atft_pipeline.evaluation promote"
    if room == "market":
        return "remove market/ and run again: the simulated market is generated anew"
    if room in ("dataset", "market_panel", "training_panel", "normalization_stats", "evaluation", "predictions"):
        return f"materialise {room} again"
    return "remove it; it is written again when needed"
