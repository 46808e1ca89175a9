"""Stub."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToldId:
    unique: bytes
    digest: bytes
    inode: int
    uid: bytes
