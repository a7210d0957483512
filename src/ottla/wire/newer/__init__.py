"""Messages of Kafka 4.4 that kio's definitions, which are Kafka 4.3's, lack: in kio's form, beside them.

Each version has a package with a module `request` and a module `response`. Where kio comes to have one, its
package here goes.
"""

VERSIONS = frozenset({("api_versions", 5), ("delete_groups", 3), ("txn_offset_commit", 6)})
