"""Users' programs under the same faults and checks in real time: programs of any language, on a real cluster.

What has threads cannot run in virtual time. Here programs are processes of this machine, the cluster is
`ottla.testing.Cluster` with real TCP, and time goes by as it does. A seed fixes the schedule of faults
(`schedule`), and nothing else: two runs of a seed are not the same run.
"""
