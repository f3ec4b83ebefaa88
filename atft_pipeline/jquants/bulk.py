"""Bulk files: what the service lists for a table, and one file from there to typed rows.

Past months are one gzipped CSV each, the days of the running month one each. A corrected file is overwritten in place
without a version, so its `LastModified` and `Size` are the only sign; `BulkFile.signature` holds both. Listing and
asking for an address go through the official client, hence through its pacing; the file itself is fetched here, as the
client's own download checks no size, leaves a half file behind and sends one request without patience.
"""

from __future__ import annotations

import gzip
import logging
import re
import zlib
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import polars as pl
import requests
import urllib3

from atft_pipeline.jquants.client import Client
from atft_pipeline.jquants.decode import decode_text
from atft_pipeline.jquants.errors import NOTHING_STORED, ExchangeError, SchemaError
from atft_pipeline.jquants.table import Table
from atft_pipeline.jquants.units import Unit

ATTEMPTS = 4
CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = (10.0, 60.0)
"""To connect, and between two chunks."""

_STAMP = re.compile(r"_(\d{4})(\d\d)(\d\d)?\.csv\.gz$")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BulkFile:
    """One listed file and the dates that its name promises; `size` in bytes as stored (gzipped)."""

    key: str
    modified: str
    size: int
    unit: Unit

    @property
    def signature(self) -> str:
        """Changes when the file is overwritten."""
        return f"{self.modified} {self.size}"

    @property
    def month(self) -> str:
        return f"{self.unit.first:%Y-%m}"

    @property
    def is_month(self) -> bool:
        return self.unit.first != self.unit.last


def list_files(client: Client, table: Table) -> list[BulkFile]:
    """Every month and day file of the table, oldest first: one request. Files without a date in their name are left
    out. Raises `ExchangeError`, with status 403 when the plan has no bulk files."""
    listed = client.get_bulk_list(endpoint=table.path)
    files = []
    for key, modified, size in listed[["Key", "LastModified", "Size"]].itertuples(index=False):
        found = _STAMP.search(str(key))
        if found:
            year, month, day = (int(part) if part else 0 for part in found.groups())
            first = date(year, month, day or 1)
            last = first if day else date(year, month, monthrange(year, month)[1])
            stamp = "" if pd.isna(modified) else pd.Timestamp(modified).isoformat()
            files.append(BulkFile(str(key), stamp, int(size), Unit(first, last)))
    return sorted(files, key=lambda file: (file.unit.first, file.key))


def fetch_file(client: Client, table: Table, file: BulkFile, folder: Path) -> tuple[BulkFile, pl.DataFrame]:
    """Download one file below `folder`, check it, and return it (as listed at the end) with its typed, sorted rows.

    An expired address, a cut or damaged file is fetched again from a fresh address; a file that was overwritten in the
    meantime is looked up again. Raises `ExchangeError` after the last attempt; nothing is left in `folder` then.
    """
    part = folder / f".{file.key.rsplit('/', 1)[-1]}.part"
    folder.mkdir(parents=True, exist_ok=True)
    problem = ""
    try:
        for attempt in range(1, ATTEMPTS + 1):
            problem = _download(client, file, part)
            content = None if problem else _unzipped(part)
            if content is not None:
                return file, decode_file(table, file, content)
            problem = problem or "the file is no whole gzip file"
            log.warning("%s %s: %s; asking for a fresh address", table.path, file.key, problem)
            if attempt < ATTEMPTS:
                file = _listed_again(client, table, file)
    finally:
        part.unlink(missing_ok=True)
    raise ExchangeError(
        f"{table.path} {file.key}: {problem}, after {ATTEMPTS} attempts; check the network and run the same command "
        f"again; {NOTHING_STORED}",
        endpoint=table.path,
        request=file.key,
    )


def decode_file(table: Table, file: BulkFile, content: bytes) -> pl.DataFrame:
    """Typed rows of an unzipped file, sorted by key. Raises `SchemaError` for another date or a repeated key."""
    try:
        text = pl.read_csv(content, infer_schema=False)
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema=dict(table.schema))
    except pl.exceptions.PolarsError as error:
        raise _wrong(table, file, f"the CSV cannot be read ({error})") from None
    frame = decode_text(table, text, file.key)
    if frame.height:
        days = frame[table.date_column]
        foreign = days.filter(~days.is_between(file.unit.first, file.unit.last))
        if foreign.len():
            raise _wrong(table, file, f"it holds rows of {foreign[0]}")
    frame = frame.sort(table.keys)
    repeated = frame.height - frame.n_unique(subset=table.keys) if frame.height else 0
    if repeated:
        raise _wrong(table, file, f"{repeated} rows repeat the key {', '.join(table.keys)}")
    return frame


def month_files(files: Sequence[BulkFile], month: str) -> tuple[BulkFile | None, dict[date, BulkFile]]:
    """The month's own file, if listed, and its day files."""
    mine = [file for file in files if file.month == month]
    whole = next((file for file in mine if file.is_month), None)
    return whole, {file.unit.first: file for file in mine if not file.is_month}


def _wrong(table: Table, file: BulkFile, what: str) -> SchemaError:
    return SchemaError(
        f"{table.path} {file.key}: {what}; run the same command again, and report it to the provider if it stays; "
        f"{NOTHING_STORED}",
        endpoint=table.path,
        request=file.key,
        status=200,
    )


def _listed_again(client: Client, table: Table, file: BulkFile) -> BulkFile:
    fresh = [other for other in list_files(client, table) if other.key == file.key]
    return fresh[0] if fresh else file


def _download(client: Client, file: BulkFile, part: Path) -> str:
    """Stream the file to `part`; returns what went wrong, or nothing. The address is a secret: no text repeats it."""
    url = client.get_bulk(key=file.key)
    if urlparse(url).scheme not in ("http", "https"):
        return "the service gave no address"
    try:
        with requests.Session() as session:  # without the API key, which is for the API's own host
            session.trust_env = not client.is_loopback
            with session.get(url, stream=True, timeout=TIMEOUT_SECONDS) as response:
                if response.status_code != 200:
                    return f"HTTP {response.status_code} from the file's address"
                # The bytes as they were sent: requests would unzip them if the server called the zip an encoding.
                with part.open("wb") as out:
                    for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                        out.write(chunk)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        return f"{type(error).__name__} while reading the file"
    got = part.stat().st_size
    return "" if got == file.size else f"{got} of {file.size} bytes"


def _unzipped(part: Path) -> bytes | None:
    """The content, or None when the zip is damaged: its checksum covers every byte."""
    try:
        return gzip.decompress(part.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None
