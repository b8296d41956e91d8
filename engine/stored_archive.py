"""A look at a NumPy archive before it is read: what is small on the disk must not be large in memory."""

from __future__ import annotations

import zipfile
from typing import BinaryIO


def stored(file: BinaryIO) -> BinaryIO:
    """Return an archive's file, at its beginning; raises ``ValueError`` where a member is compressed.

    What Leeway writes is not, so that members take no more than the file does. Compressed ones may take a thousand
    times that.
    """
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(
                    f"member {member.filename[:100]!r} is compressed, which those that Leeway writes are not"
                )
    file.seek(0)
    return file
