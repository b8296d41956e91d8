"""The archive: all feedback as Parquet, by decision point and day, for training and for anybody's notebook."""

from training.archive.reader import ArchiveReader
from training.archive.writer import ArchiveWriter, Rejected

__all__ = ["ArchiveReader", "ArchiveWriter", "Rejected"]
