"""The flags that say where pictures come from, shared by the commands that cut them and that cut them again."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from curation import ledger
from curation.decode import DEFAULT_MAX_PIXELS
from curation.folders import Folder
from shards.store import Store, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Stores, then folders, each in the order given."""

    stores: tuple[Store, ...]
    folders: tuple[Folder, ...]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """SOURCE, --source and --max-pixels."""
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="a store of dynet-filter, or a folder of pictures")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=FOLDER", help="a folder under a name")
    parser.add_argument("--max-pixels", type=int, default=DEFAULT_MAX_PIXELS, help="larger pictures are refused")


def given(flags: argparse.Namespace, store: Store) -> Given:
    """What the flags name; nothing named is `store` itself, where it was filtered. Raises ValueError.

    SOURCE is a store where it holds a ledger, else a folder called by its last part.
    """
    stores: list[Store] = []
    folders: list[Folder] = []
    for name in flags.sources:
        one = open_store(name, flags.endpoint_url)
        if _is_filtered(one):
            stores.append(one)
        elif "://" in name:
            raise ValueError(f"{name} has no ledger: run dynet-filter with --out {name} first")
        else:
            folders.append(_folder(Path(name).resolve().name.lower(), name))
    if not flags.sources and not flags.source and _is_filtered(store):
        stores = [store]
    return Given(stores=tuple(stores), folders=(*folders, *(_named_folder(text) for text in flags.source)))


def _is_filtered(store: Store) -> bool:
    return next(ledger.units(store), None) is not None


def _named_folder(text: str) -> Folder:
    name, _, path = text.partition("=")
    if not path:
        raise ValueError(f"--source {text}: write NAME=FOLDER, such as div2k=DIV2K_train_HR")
    return _folder(name, path)


def _folder(name: str, path: str) -> Folder:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name) or not name[0].isalnum():
        raise ValueError(f"'{name}' is no name for a source: give letters, digits, '-', '_', '.' (NAME=FOLDER)")
    return Folder(name=name, path=Path(path))
