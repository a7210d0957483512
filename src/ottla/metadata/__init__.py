"""What the cluster is: brokers, topics, partition states and configurations, kept in a MetadataStore.

``store`` is the contract; ``sqlite`` keeps it for a single node, ``etcd`` for a cluster; ``socket_server``
has other processes of this machine use one, which they see as ``socket_store``; ``stores`` opens the one that
a URL names. ``keys`` says what is stored under which key; ``image`` is the immutable picture that every node
builds from the store's events; ``topics``, ``configs`` and ``placement`` plan changes (pure); ``controller``
carries plans out; ``service`` ties these together; ``alone`` has one store pass from one node to several, and
back.
"""
