"""Files, on a disk or in a bucket: the one place that knows the difference.

whole     files that are whole or not there, and files of rows
bucket    paths in a bucket
paths     what is done with a path, wherever it leads
retry     a bucket that can't be reached
owner     who writes to a directory in a bucket, which knows no locks
"""

from tf_gnc._files.bucket import BucketPath, MissingExtraError, import_extra
from tf_gnc._files.owner import OWNER, Owner, TakenError
from tf_gnc._files.paths import (
    AnyPath,
    Reader,
    as_path,
    is_bucket,
    local_draft,
    local_file,
    remove_tree,
)
from tf_gnc._files.retry import UnreachableError, patience
from tf_gnc._files.whole import (
    UNFINISHED,
    append_row,
    finite_or_none,
    lines_of,
    read_json,
    read_rows,
    write,
    write_json,
    write_rows,
)

__all__ = [
    "OWNER",
    "UNFINISHED",
    "AnyPath",
    "BucketPath",
    "MissingExtraError",
    "Owner",
    "Reader",
    "TakenError",
    "UnreachableError",
    "append_row",
    "as_path",
    "finite_or_none",
    "import_extra",
    "is_bucket",
    "lines_of",
    "local_draft",
    "local_file",
    "patience",
    "read_json",
    "read_rows",
    "remove_tree",
    "write",
    "write_json",
    "write_rows",
]
