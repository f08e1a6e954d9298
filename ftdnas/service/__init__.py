"""The service: jobs in a queue, worker processes that carry them out, and the HTTP and pages in front of them."""
