"""Moving replicas between nodes: `ottla cluster reassign` and `ottla cluster drain`.

``plan`` says which replicas go where (pure); ``plan_file`` reads and writes plans in Kafka's JSON; ``runner``
has the cluster carry one out, some partitions at a time; ``throttle`` slows that down.
"""
