"""One module per API, by subject, named as its messages; ``handle(ctx, request)`` returns the answer."""
