"""etcd's messages, as far as they are used here (etcd/api: etcdserverpb/rpc.proto, mvccpb/kv.proto).

Protobuf makes classes of what stands here; fields that do not are skipped by it. There is no generated file,
which would belong to one version of protobuf. An enumeration is the number that it is on the wire.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "etcdserverpb"
# Which of its values a Compare is about, and how; what an Event tells.
COMPARE_EQUAL, COMPARE_MOD, COMPARE_VALUE = 0, 2, 3
EVENT_DELETE = 1

# By message: number, name and type of each field, and "*" for a list or the name of the oneof that it is in.
_FIELDS: dict[str, tuple[str, ...]] = {
    "ResponseHeader": ("1 cluster_id uint64", "2 member_id uint64", "3 revision int64"),
    "KeyValue": (
        "1 key bytes",
        "2 create_revision int64",
        "3 mod_revision int64",
        "4 version int64",
        "5 value bytes",
        "6 lease int64",
    ),
    "Event": ("1 type int32", "2 kv KeyValue"),
    "RangeRequest": (
        "1 key bytes",
        "2 range_end bytes",
        "3 limit int64",
        "4 revision int64",
        "8 keys_only bool",
    ),
    "RangeResponse": ("1 header ResponseHeader", "2 kvs KeyValue *", "3 more bool"),
    "PutRequest": ("1 key bytes", "2 value bytes", "3 lease int64"),
    "PutResponse": ("1 header ResponseHeader",),
    "DeleteRangeRequest": ("1 key bytes", "2 range_end bytes"),
    "DeleteRangeResponse": ("1 header ResponseHeader", "2 deleted int64"),
    "Compare": (
        "1 result int32",
        "2 target int32",
        "3 key bytes",
        "6 mod_revision int64 target_union",
        "7 value bytes target_union",
    ),
    "RequestOp": (
        "1 request_range RangeRequest request",
        "2 request_put PutRequest request",
        "3 request_delete_range DeleteRangeRequest request",
    ),
    "ResponseOp": (
        "1 response_range RangeResponse response",
        "2 response_put PutResponse response",
        "3 response_delete_range DeleteRangeResponse response",
    ),
    "TxnRequest": ("1 compare Compare *", "2 success RequestOp *", "3 failure RequestOp *"),
    "TxnResponse": ("1 header ResponseHeader", "2 succeeded bool", "3 responses ResponseOp *"),
    "CompactionRequest": ("1 revision int64",),
    "CompactionResponse": ("1 header ResponseHeader",),
    "LeaseGrantRequest": ("1 TTL int64",),
    "LeaseGrantResponse": ("1 header ResponseHeader", "2 ID int64"),
    "LeaseRevokeRequest": ("1 ID int64",),
    "LeaseRevokeResponse": ("1 header ResponseHeader",),
    "LeaseKeepAliveRequest": ("1 ID int64",),
    "LeaseKeepAliveResponse": ("1 header ResponseHeader", "2 ID int64", "3 TTL int64"),
    "WatchCreateRequest": ("1 key bytes", "2 range_end bytes", "3 start_revision int64", "8 fragment bool"),
    "WatchRequest": ("1 create_request WatchCreateRequest request",),
    "WatchResponse": (
        "1 header ResponseHeader",
        "3 created bool",
        "4 canceled bool",
        "5 compact_revision int64",
        "6 cancel_reason string",
        "7 fragment bool",
        "11 events Event *",
    ),
    "AuthenticateRequest": ("1 name string", "2 password string"),
    "AuthenticateResponse": ("1 header ResponseHeader", "2 token string"),
}
_TYPES = descriptor_pb2.FieldDescriptorProto


def _make() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="ottla/etcd.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for text in fields:
            number, field_name, kind, *more = text.split()
            field = message.field.add(name=field_name, number=int(number), label=_TYPES.LABEL_OPTIONAL)
            if kind in _FIELDS:
                field.type, field.type_name = _TYPES.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                field.type = _TYPES.Type.Value(f"TYPE_{kind.upper()}")
            if more == ["*"]:
                field.label = _TYPES.LABEL_REPEATED
            elif more:
                if more[0] not in [one.name for one in message.oneof_decl]:
                    message.oneof_decl.add(name=more[0])
                field.oneof_index = [one.name for one in message.oneof_decl].index(more[0])
    # Not the pool of all: others in the process may have etcd's messages as well.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _FIELDS
    }


_MADE = _make()

KeyValue = _MADE["KeyValue"]
RangeRequest, RangeResponse = _MADE["RangeRequest"], _MADE["RangeResponse"]
PutRequest, DeleteRangeRequest = _MADE["PutRequest"], _MADE["DeleteRangeRequest"]
Compare, RequestOp = _MADE["Compare"], _MADE["RequestOp"]
TxnRequest, TxnResponse = _MADE["TxnRequest"], _MADE["TxnResponse"]
CompactionRequest, CompactionResponse = _MADE["CompactionRequest"], _MADE["CompactionResponse"]
LeaseGrantRequest, LeaseGrantResponse = _MADE["LeaseGrantRequest"], _MADE["LeaseGrantResponse"]
LeaseRevokeRequest, LeaseRevokeResponse = _MADE["LeaseRevokeRequest"], _MADE["LeaseRevokeResponse"]
LeaseKeepAliveRequest = _MADE["LeaseKeepAliveRequest"]
LeaseKeepAliveResponse = _MADE["LeaseKeepAliveResponse"]
WatchRequest, WatchCreateRequest = _MADE["WatchRequest"], _MADE["WatchCreateRequest"]
WatchResponse = _MADE["WatchResponse"]
AuthenticateRequest, AuthenticateResponse = _MADE["AuthenticateRequest"], _MADE["AuthenticateResponse"]
