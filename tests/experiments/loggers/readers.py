"""What the libraries hold of a run, each read by a way of its own.

Numbers come as `{(name, step): [value, ...]}`, with a value for each time that
it was logged.
"""

import collections
import json
import struct


def from_mlflow(client, run_id):
    found = collections.defaultdict(list)
    for name in client.get_run(run_id).data.metrics:
        for metric in client.get_metric_history(run_id, name):
            found[name, metric.step].append(metric.value)
    return found


def from_tensorboard(folder):
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder), event_accumulator.STORE_EVERYTHING_SIZE_GUIDANCE
    ).Reload()
    found = collections.defaultdict(list)
    for name in events.Tags()["tensors"]:
        if events.SummaryMetadata(name).plugin_data.plugin_name == "scalars":
            for event in events.Tensors(name):
                (value,) = event.tensor_proto.float_val or struct.unpack(
                    "<f", event.tensor_proto.tensor_content
                )
                found[name, event.step].append(value)
    return found, events


def from_wandb(folders):
    """Numbers, and all records by their kind."""
    found, records = (
        collections.defaultdict(list),
        collections.defaultdict(list),
    )
    for folder in sorted(folders):
        (path,) = folder.glob("*.wandb")
        for record in _wandb_records(path.read_bytes()):
            kind = record.WhichOneof("record_type")
            records[kind].append(getattr(record, kind))
            if kind == "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(
                        item.value_json
                    )
                    for item in record.history.item
                }
                for name, value in row.items():
                    if not name.startswith("_"):
                        found[name, row["_step"]].append(value)
    return found, records


def _wandb_records(content):
    """LevelDB's log format, after a header: blocks of 32 KiB, in each pieces
    with a checksum, a length, and a type (whole, first, middle, last)."""
    from wandb.proto import wandb_internal_pb2

    place, parts = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""
