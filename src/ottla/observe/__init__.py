"""What a node tells of itself by HTTP: metrics, whether it lives, whether it is ready.

Nobody below knows of it: whoever counts owns a plain integer (``ottla.metrics``); here they are gone through
when somebody asks, in pieces. A node without ``metrics.listener`` loads nothing of this.
"""
