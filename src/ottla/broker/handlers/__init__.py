"""One module per API, named as its messages are: ``handle(ctx, request)`` returns the response's fields."""
